// Who is who from frame to frame of a video: faces/tracking.py, whose measured constants it shares.
import { mesh, tracking } from './constants.js'
import { RotatedBox } from './detection.js'
import { cut, resizeArea } from './images.js'
import { overlap } from './mesh.js'

const {
  APPEARANCE_PX, MOST_CHANGE, CUT_CHANGE, REPLACED_CHANGE, LEAST_CONTRAST, LEARNING_RATE, MOST_STEP, SEARCH_MS,
  SEARCH_LOST_MS, SEARCH_FULL_MS, FORGET_MS, MOST_SPEED, COAST_MS, LARGER, MIN_CUTOFF_HZ, BETA, SPEED_CUTOFF_HZ,
} = tracking
const { PRESENCE, REGION_SCALE } = mesh

/** One-Euro filter: points at rest are smoothed, quick ones follow at once. */
export class PointFilter {
  constructor(points, timestampMs) {
    Object.assign(this, { raw: points, smooth: points, speed: new Float32Array(points.length), timestampMs })
  }

  /** Points (478 x 3, flat) in pixels, smoothed; size: that of the face, in pixels. */
  update(points, size, timestampMs) {
    const elapsedS = (timestampMs - this.timestampMs) / 1000
    if (elapsedS > 0) {
      const speedShare = shareOf(SPEED_CUTOFF_HZ, elapsedS)
      this.speed = this.speed.map((speed, i) =>
        speed + speedShare * ((points[i] - this.raw[i]) / (size * elapsedS) - speed))
      this.smooth = this.smooth.map((value, i) =>
        value + shareOf(MIN_CUTOFF_HZ + BETA * Math.abs(this.speed[i]), elapsedS) * (points[i] - value))
      Object.assign(this, { raw: points, timestampMs })
    }
    return this.smooth
  }
}

/** The new value's share in a low-pass filter of that cutoff. */
const shareOf = (cutoffHz, elapsedS) => 1 / (1 + 1 / (2 * Math.PI * cutoffHz * elapsedS))

/** Brightness of a face's region, not turned, as a small picture (16 x 16, flat) in [0, 1]. */
export function appearanceOf(frame, region) {
  const half = region.side / 3  // the face itself: two thirds of its region
  const [left, top] = [region.x - half, region.y - half].map((value) => Math.max(0, Math.trunc(value)))
  const right = Math.min(frame.width, Math.trunc(region.x + half))
  const bottom = Math.min(frame.height, Math.trunc(region.y + half))
  const appearance = new Float32Array(APPEARANCE_PX * APPEARANCE_PX)
  if (right <= left || bottom <= top) return appearance
  const step = Math.max(1, Math.floor(Math.min(right - left, bottom - top) / (4 * APPEARANCE_PX)))
  const part = cut(frame, left, top, right, bottom, step)
  const { data } = resizeArea(part, APPEARANCE_PX, APPEARANCE_PX)
  return appearance.map((_, i) => (data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / (3 * 255))
}

/** How much two appearances differ: 1 less their correlation in brightness, 0 if either is flat. */
export function change(one, other) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length
  const [meanOne, meanOther] = [mean(one), mean(other)]
  let [together, ofOne, ofOther] = [0, 0, 0]
  for (let i = 0; i < one.length; i++) {
    const [a, b] = [one[i] - meanOne, other[i] - meanOther]
    together += a * b
    ofOne += a * a
    ofOther += b * b
  }
  const spread = Math.sqrt(ofOne * ofOther)
  return spread > one.length * LEAST_CONTRAST ** 2 ? 1 - together / spread : 0
}

/** Somebody in a video; memory: the remembered appearance; speed in pixels a millisecond. */
class Person {
  constructor(number, reading, appearance, seenMs) {
    Object.assign(this, { number, reading, appearance, memory: appearance, seenMs, speed: [0, 0] })
    this.filter = new PointFilter(reading.points, seenMs)
  }

  get region() {
    return this.reading.region
  }

  /** Where the face is thought to be at a time. */
  expected(timestampMs) {
    const elapsedMs = Math.min(timestampMs - this.seenMs, COAST_MS)
    const { x, y, side, angle } = this.region
    return new RotatedBox(x + this.speed[0] * elapsedMs, y + this.speed[1] * elapsedMs, side, angle)
  }

  /** Takes in a sighting. */
  see(reading, appearance, timestampMs) {
    const elapsedMs = Math.max(1, timestampMs - this.seenMs)
    const keep = elapsedMs < SEARCH_MS ? 0.7 : 0
    this.speed = ['x', 'y'].map((axis, i) =>
      keep * this.speed[i] + ((1 - keep) * (reading.region[axis] - this.region[axis])) / elapsedMs)
    if (change(this.memory, appearance) < MOST_CHANGE) {  // who is half hidden is not remembered so
      this.memory = this.memory.map((value, i) => (1 - LEARNING_RATE) * value + LEARNING_RATE * appearance[i])
    }
    if (elapsedMs >= SEARCH_MS) this.filter = new PointFilter(reading.points, timestampMs)
    const points = this.filter.update(reading.points, reading.region.side / REGION_SCALE, timestampMs)
    Object.assign(this, { reading: { ...reading, points }, appearance, seenMs: timestampMs })
  }
}

/** Follows the `maxFaces` largest faces through a video: frames in, people with their readings out. */
export class Tracker {
  constructor(detector, mesh, maxFaces) {
    Object.assign(this, { detector, mesh, maxFaces, seen: [], lost: [], count: 0, searchedMs: null })
    this.frameBefore = null
  }

  /** Who is on a frame; timestamps must not go back. */
  async track(frame, timestampMs) {
    const known = this.seen
    this.seen = []
    await this.readKnown(frame, timestampMs, known)
    const justLost = known.filter((person) => !this.seen.includes(person))
    const lost = this.lost.filter((person) => timestampMs - person.seenMs <= FORGET_MS)
    this.lost = [...lost, ...justLost]
    let waitMs = this.lost.length || !this.seen.length ? SEARCH_LOST_MS : SEARCH_MS
    if (this.seen.length === this.maxFaces) waitMs = SEARCH_FULL_MS
    if (justLost.length || this.searchedMs === null || timestampMs - this.searchedMs >= waitMs) {
      await this.search(frame, timestampMs)
      this.searchedMs = timestampMs
    }
    this.frameBefore = frame
    return this.seen
  }

  /** Reads those who were on the frame before where they are expected. */
  async readKnown(frame, timestampMs, known) {
    const sightings = []
    for (const person of known) {
      const expected = person.expected(timestampMs)
      const reading = await this.mesh.read(frame, expected)
      const appearance = appearanceOf(frame, reading.region)
      const there = reading.presence >= PRESENCE && distance(reading.region, expected) < MOST_STEP
      if (there && !this.replaced(person, appearance, frame)) {
        sightings.push({ changed: change(person.memory, appearance), person, reading, appearance })
      }
    }
    for (const { person, reading, appearance } of sightings.sort((one, other) => one.changed - other.changed)) {
      // Where two are read as one, it is the one who is more like it; the other is behind.
      if (this.isSeen(reading.region)) continue
      person.see(reading, appearance, timestampMs)
      this.seen.push(person)
    }
  }

  /**
   * Tells whether the face in a person's place is another one. A head that turns quickly changes as much as
   * two people differ, but the scene around it does not.
   */
  replaced(person, appearance, frame) {
    const changed = change(person.appearance, appearance)
    if (this.maxFaces > 1 || changed < MOST_CHANGE || changed >= REPLACED_CHANGE) return changed >= MOST_CHANGE
    return change(sceneOf(this.frameBefore), sceneOf(frame)) >= CUT_CHANGE
  }

  isSeen(region) {
    return this.seen.some((person) => overlap(region, person.region))
  }

  /** Looks for faces on the whole frame, and follows those who come back, are new or larger. */
  async search(frame, timestampMs) {
    for (const detection of await this.detector.detect(frame, this.maxFaces > 1 ? 2 : 1)) {
      const here = new RotatedBox(detection.x, detection.y, REGION_SCALE * detection.size)
      let smallest = null
      if (this.seen.length >= this.maxFaces) {
        smallest = this.seen.reduce((one, other) => (other.region.side < one.region.side ? other : one))
        if (here.side < LARGER * smallest.region.side) break  // the largest come first
      }
      if (this.isSeen(here)) continue
      const reading = await this.mesh.find(frame, detection)
      if (reading === null || this.isSeen(reading.region)) continue
      if (smallest) {
        this.seen.splice(this.seen.indexOf(smallest), 1)
        this.lost.push(smallest)
      }
      this.takeUp(reading, appearanceOf(frame, reading.region), timestampMs)
    }
  }

  takeUp(reading, appearance, timestampMs) {
    let person = this.recognise(reading.region, appearance, timestampMs)
    if (person) {
      this.lost.splice(this.lost.indexOf(person), 1)
      person.see(reading, appearance, timestampMs)
    } else {
      person = new Person(this.count++, reading, appearance, timestampMs)
    }
    this.seen.push(person)
  }

  /**
   * Who of the lost has come back in a region, or undefined: the one of them most like it. A face half hidden
   * by another one that is seen looks like nobody: there, the place alone tells.
   */
  recognise(region, appearance, timestampMs) {
    const unlike = (person) => change(person.memory, appearance)
    const candidates = this.lost.filter((person) => {
      const expected = person.expected(timestampMs)
      const off = distance(region, expected)
      const alike = unlike(person) < MOST_CHANGE && off <= 1 + (MOST_SPEED * (timestampMs - person.seenMs)) / 1000
      const hidden = off < MOST_STEP && this.seen.some((other) => distance(region, other.region) < 1)
      const size = region.side / expected.side
      return (alike || hidden) && size > 0.5 && size < 2
    })
    return candidates.sort((one, other) => unlike(one) - unlike(other))[0]
  }
}

/** How far two regions' middles are apart, in sides of the second. */
function distance(region, other) {
  return Math.hypot(region.x - other.x, region.y - other.y) / other.side
}

/** The appearance of a whole frame. */
function sceneOf(frame) {
  const side = REGION_SCALE * Math.max(frame.width, frame.height)
  return appearanceOf(frame, new RotatedBox(frame.width / 2, frame.height / 2, side))
}

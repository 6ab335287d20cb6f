// A region of a picture -> landmarks and blendshapes, by MediaPipe's two networks: faces/mesh.py.
import { features, mesh } from './constants.js'
import { RotatedBox } from './detection.js'

const { MESH_POINTS } = features
const {
  INPUT_PX, REGION_SCALE, EYE_CORNERS, BLENDSHAPE_POINTS, READ_REGION_PX, PRESENCE, READINGS, FIRST_REGIONS,
  FIRST_DOWN, MOST_DRIFT,
} = mesh

/** The landmark network and the blendshape network. */
export class FaceMesh {
  constructor(landmarks, blendshapes) {
    Object.assign(this, { landmarks, blendshapes })
    this.input = new Float32Array(3 * INPUT_PX * INPUT_PX)
  }

  /**
   * The reading of a region of a frame: points (478 x 3, flat) in pixels, blendshapes (52), presence in
   * [0, 1], and the region that the points give.
   */
  async read(frame, region) {
    const { data } = region.cut(frame, INPUT_PX, READ_REGION_PX)
    for (let i = 0, at = 0; i < this.input.length; at++) {
      for (const end = i + 3; i < end; i++, at++) this.input[i] = data[at] / 255
    }
    const [points, presence] = await this.landmarks.run(this.input)
    // The blendshape network takes the points of the upright crop: place and size are nothing to it, turn is.
    const chosen = Float32Array.from(BLENDSHAPE_POINTS.flatMap((point) => [points[3 * point], points[3 * point + 1]]))
    const [blendshapes] = await this.blendshapes.run(chosen)
    toPicture(points, region)
    return { points, blendshapes, presence: 1 / (1 + Math.exp(-presence[0])), region: regionOf(points) }
  }

  /** The reading of a detected face, or null if its points show no face there. */
  async find(frame, detection) {
    const down = FIRST_DOWN * detection.size
    const x = detection.x - down * Math.sin(detection.angle)
    const y = detection.y + down * Math.cos(detection.angle)
    const [least, most] = READINGS
    for (const side of FIRST_REGIONS) {
      let region = new RotatedBox(x, y, side * detection.size, detection.angle)
      for (let times = 1; times <= most; times++) {
        const reading = await this.read(frame, region)
        if (drifted(reading.region, detection)) break
        if (times >= least && reading.presence >= PRESENCE) return reading
        region = reading.region
      }
    }
    return null
  }
}

/** Turns points of a region's crop into pixels of the picture, in place; z has the scale of x. */
function toPicture(points, region) {
  const [a, b, c, d, e, f] = region.fromCrop(INPUT_PX)
  for (let i = 0; i < points.length; i += 3) {
    const [x, y] = [points[i], points[i + 1]]
    points[i] = a * x + b * y + c
    points[i + 1] = d * x + e * y + f
    points[i + 2] *= region.side / INPUT_PX
  }
}

/** The region of a face with these points: its mesh upright in the middle. */
function regionOf(points) {
  const [first, second] = EYE_CORNERS.map((point) => 3 * point)
  const angle = Math.atan2(points[second + 1] - points[first + 1], points[second] - points[first])
  const [cosine, sine] = [Math.cos(angle), Math.sin(angle)]
  let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity]
  for (let i = 0; i < 3 * MESH_POINTS; i += 3) {
    const across = cosine * points[i] + sine * points[i + 1]
    const down = cosine * points[i + 1] - sine * points[i]
    left = Math.min(left, across)
    right = Math.max(right, across)
    top = Math.min(top, down)
    bottom = Math.max(bottom, down)
  }
  const [across, down] = [(left + right) / 2, (top + bottom) / 2]
  const side = REGION_SCALE * Math.max(right - left, bottom - top)
  return new RotatedBox(cosine * across - sine * down, sine * across + cosine * down, side, angle)
}

/** Tells whether the points of a detected face lie on something else, or were read the wrong way up. */
function drifted(region, detection) {
  const [off, ratio, turn] = MOST_DRIFT
  const size = region.side / (FIRST_REGIONS[0] * detection.size)
  const angle = region.angle - detection.angle
  const turned = Math.abs(Math.atan2(Math.sin(angle), Math.cos(angle)))
  return Math.hypot(region.x - detection.x, region.y - detection.y) > off * detection.size
    || !(1 / ratio < size && size < ratio) || turned > turn
}

/** Tells whether two regions show the same face: the middle of one lies well within the other's mesh. */
export function overlap(one, other) {
  return Math.hypot(one.x - other.x, one.y - other.y) < 0.25 * Math.max(one.side, other.side)
}

// Pictures and frames -> faces: faces/landmarker.py. A face is {person, landmarks, blendshapes}.
import { faceBox } from './features.js'
import { brighten } from './images.js'
import { overlap } from './mesh.js'
import { Tracker } from './tracking.js'

/** How many sizes of faces are looked for on a picture (`FaceDetector.detect`): all three on a still one. */
const STILL_DEPTH = 3

/** Faces with their landmarks, the largest first, on frames of a video or on stills. */
export class FaceLandmarker {
  constructor(detector, mesh) {
    Object.assign(this, { detector, mesh })
  }

  /** What follows the `maxFaces` largest faces through a video. */
  newTracker(maxFaces) {
    return new Tracker(this.detector, this.mesh, maxFaces)
  }

  /** The faces on a video's frame; timestamps in ms must not go back. */
  async detect(frame, timestampMs, tracker) {
    const people = await tracker.track(brighten(frame), timestampMs)
    return largestFirst(people.map(({ number, reading }) => faceOf(reading, frame.width, number)))
  }

  /** The faces on a still picture. */
  async detectPicture(picture) {
    const bright = brighten(picture)
    const readings = []
    for (const detection of await this.detector.detect(bright, STILL_DEPTH)) {
      const reading = await this.mesh.find(bright, detection)
      if (reading && !readings.some((other) => overlap(reading.region, other.region))) readings.push(reading)
    }
    return largestFirst(readings.map((reading) => faceOf(reading, picture.width)))
  }
}

function faceOf(reading, width, person = null) {
  return { person, landmarks: reading.points.map((value) => value / width), blendshapes: reading.blendshapes }
}

function largestFirst(faces) {
  const area = ({ landmarks }) => {
    const [, , width, height] = faceBox(landmarks)
    return width * height
  }
  return faces.sort((one, other) => area(other) - area(one))
}

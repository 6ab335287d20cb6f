// Frames -> what their faces show: app/pipeline.py. Landmarks, features and crop, networks, smoothing.
import { EmotionClassifier } from './classifier.js'
import { crops, pipeline, smoothing } from './constants.js'
import { cropFace, mouthContrast } from './crops.js'
import { FaceDetector } from './detection.js'
import { faceBox } from './features.js'
import { FaceLandmarker } from './landmarker.js'
import { FaceMesh } from './mesh.js'
import { Network, fetchBytes } from './runtime.js'
import { FaceSmoothers } from './smoothing.js'

/** Reads the faces of frames with the page's model. */
export class FaceReader {
  /** Opens all networks, those of the model as `EmotionClassifier` does; throws an Error that says what is wrong. */
  static async open(wanted) {
    const classifier = await EmotionClassifier.open(wanted)
    const open = async (name) => Network.open(await fetchBytes(`networks/${name}.tflite`))
    const mesh = new FaceMesh(await open('face_landmarks_detector'), await open('face_blendshapes'))
    return new FaceReader(new FaceLandmarker(new FaceDetector(await open('face_detector')), mesh), classifier)
  }

  constructor(landmarker, classifier) {
    Object.assign(this, { landmarker, classifier })
    this.begin(1)
  }

  /** Begins a new video, whose timestamps start anew; a frame that is still being read belongs to the old one. */
  begin(maxFaces, smoothingMs = smoothing.TIME_CONSTANT_MS) {
    const { classes, threshold } = this.classifier
    this.video = {
      tracker: this.landmarker.newTracker(maxFaces),
      smoothers: new FaceSmoothers(classes, threshold, smoothingMs),
      cropOutputs: null,
      cropped: { people: '', timestampMs: 0 },
    }
  }

  /**
   * What the faces of a video's frame show, by their numbers, smoothed in time: {face, landmarks, box, emotion,
   * confidence, probabilities}. Timestamps in ms must not go back.
   */
  async read(frame, timestampMs) {
    const { video } = this
    return this.results(video, await this.landmarker.detect(frame, timestampMs, video.tracker), frame, timestampMs)
  }

  /** What the faces of a still picture show, the largest first. */
  async readPicture(picture) {
    this.begin(1)
    const { video } = this
    const faces = await this.landmarker.detectPicture(picture)
    faces.forEach((face, number) => { face.person = number })
    return this.results(video, faces, picture, 0)
  }

  async results(video, faces, frame, timestampMs) {
    const cropOutputs = await this.cropOutputsOf(video, faces, frame, timestampMs)
    const results = []
    for (const [i, { person, landmarks, blendshapes }] of faces.entries()) {
      let probabilities = await this.classifier.predict(landmarks, blendshapes, cropOutputs?.[i])
      if (cropOutputs?.[i].covered) {
        const even = (1 - pipeline.COVERED_WEIGHT) / probabilities.length
        probabilities = probabilities.map((value) => pipeline.COVERED_WEIGHT * value + even)
      }
      const smoother = video.smoothers.ofPerson(person, timestampMs)
      const [emotion, confidence] = smoother.update(probabilities, timestampMs)
      const box = boxPx(faceBox(landmarks), frame)
      results.push({ face: person, landmarks, box, emotion, confidence, probabilities: smoother.probabilities })
    }
    return results.sort((one, other) => one.face - other.face)
  }

  /**
   * The crop network's output of each face, if the model has one, and whether its mouth is covered. A person
   * alone is cropped once in `CROP_EVERY_MS` and read by that output until then: labels are smoothed over more
   * than that, and the crop network costs the most after detection.
   */
  async cropOutputsOf(video, faces, frame, timestampMs) {
    if (!this.classifier.needsCrops || !faces.length) return (video.cropOutputs = null)
    const people = faces.map((face) => face.person).join()
    const recent = timestampMs - video.cropped.timestampMs < pipeline.CROP_EVERY_MS
    if (video.cropOutputs === null || !recent || faces.length > 1 || people !== video.cropped.people) {
      video.cropOutputs = []
      for (const { landmarks } of faces) {
        const crop = cropFace(frame, landmarks)
        const covered = mouthContrast(crop) < crops.COVERED_CONTRAST
        video.cropOutputs.push({ ...await this.classifier.predictCrop(crop), covered })
      }
      video.cropped = { people, timestampMs }
    }
    return video.cropOutputs
  }
}

/** The part of a box (in widths of the picture) within the frame, in whole pixels: [x, y, width, height]. */
export function boxPx([x, y, width, height], frame) {
  const clip = (value, most) => Math.min(Math.max(Math.round(value * frame.width), 0), most)
  const [left, right] = [clip(x, frame.width), clip(x + width, frame.width)]
  const [top, bottom] = [clip(y, frame.height), clip(y + height, frame.height)]
  return [left, top, right - left, bottom - top]
}

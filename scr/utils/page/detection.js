// Where faces are on a picture, and how each is turned: MediaPipe's BlazeFace, short range.
//
// The counterpart of faces/detection.py, whose YuNet has no form that runs in a browser: what is found here
// may differ, how a face is read then does not. The network sees 128 pixels, so small faces are looked for on
// parts of the picture. Source: Bazarevsky and others 2019, "BlazeFace"; MediaPipe, face_detection_short_range.
import { cut, shrink, warp } from './images.js'

const INPUT_PX = 128
/** Least score of a face on the whole picture, where tight portraits get .58, and on parts of it, where what is
 * no face gets up to .72 and faces .87 and more (61 pictures of 6 sets). */
const SCORE = 0.5
const PART_SCORE = 0.75
/** Overlap (intersection over union) from which two boxes show the same face. */
const SAME_FACE = 0.3
/** Size of a face as YuNet gives it, in sizes of BlazeFace's box, and how much lower its middle lies (the same
 * pictures, against the regions that the faces' own points give). */
const SIZE = 1.17
const DOWN = -0.07

/** A square part of a picture: middle and side in pixels, turn in radians, clockwise as seen. */
export class RotatedBox {
  constructor(x, y, side, angle = 0) {
    Object.assign(this, { x, y, side, angle })
  }

  /** The region turned upright, `px` wide, black beyond the frame; `mostPx` bounds the detail it keeps. */
  cut(frame, px, mostPx = px) {
    const reach = 0.75 * this.side + 2  // half the diagonal of a turned square, and a little
    const [left, top] = [this.x - reach, this.y - reach].map((value) => Math.max(0, Math.trunc(value)))
    const right = Math.min(frame.width, Math.trunc(this.x + reach))
    const bottom = Math.min(frame.height, Math.trunc(this.y + reach))
    if (right <= left || bottom <= top) return { data: new Uint8Array(px * px * 4), width: px, height: px }
    const part = cut(frame, left, top, right, bottom)
    const small = shrink(part, Math.min(1, mostPx / this.side))
    const [scaleX, scaleY] = [small.width / part.width, small.height / part.height]
    const [a, b, c, d, e, f] = this.fromCrop(px)
    // Pixels are sampled from the middle of the first one, all else here counts from its corner.
    const at = (u, v, w) => u * 0.5 + v * 0.5 + w
    return warp(small, [
      a * scaleX, b * scaleX, (at(a, b, c) - left) * scaleX - 0.5,
      d * scaleY, e * scaleY, (at(d, e, f) - top) * scaleY - 0.5,
    ], px, false)
  }

  /** The matrix, six numbers, from pixels of a crop of that side to pixels of the picture. */
  fromCrop(px) {
    const cosine = (Math.cos(this.angle) * this.side) / px
    const sine = (Math.sin(this.angle) * this.side) / px
    const half = px / 2
    return [
      cosine, -sine, this.x - (cosine - sine) * half,
      sine, cosine, this.y - (sine + cosine) * half,
    ]
  }
}

/** 896 places on the input, in its sides, around which the network describes faces. */
const ANCHORS = [[16, 2], [8, 6]].flatMap(([cells, times]) =>
  Array.from({ length: cells * cells * times }, (_, i) => {
    const cell = Math.floor(i / times)
    return [((cell % cells) + 0.5) / cells, (Math.floor(cell / cells) + 0.5) / cells]
  }))

/** BlazeFace: pictures in, detections out ({x, y, size, angle, score}, in pixels), the largest first. */
export class FaceDetector {
  constructor(network) {
    this.network = network
  }

  /**
   * The faces on a picture. They are looked for on the whole, then on parts of a half of its longer side, then
   * of a quarter: `depth` of the three, and the halves too where nothing is found.
   */
  async detect(picture, depth) {
    const longer = Math.max(picture.width, picture.height)
    const found = await this.searchPart(picture, 0, 0, longer, SCORE)
    for (let level = 1; level < 3 && (level < depth || (level === 1 && !found.length)); level++) {
      const side = longer / 2 ** level
      for (let top = 0; top < picture.height - side / 4; top += side / 2) {
        for (let left = 0; left < picture.width - side / 4; left += side / 2) {
          found.push(...await this.searchPart(picture, left, top, side, PART_SCORE))
        }
      }
    }
    return merge(found).sort((one, other) => other.size - one.size)
  }

  async searchPart(picture, left, top, side, leastScore) {
    const box = new RotatedBox(left + side / 2, top + side / 2, side)
    const { data } = box.cut(picture, INPUT_PX)
    const input = new Float32Array(3 * INPUT_PX * INPUT_PX)
    for (let i = 0, at = 0; i < input.length; at++) {
      for (const end = i + 3; i < end; i++, at++) input[i] = data[at] / 127.5 - 1
    }
    const [boxes, scores] = await this.network.run(input)
    const found = []
    scores.forEach((logit, i) => {
      const score = 1 / (1 + Math.exp(-logit))
      if (score < leastScore) return
      const [x, y] = ANCHORS[i]
      const value = (k) => (boxes[16 * i + k] / INPUT_PX) * side
      const angle = Math.atan2(value(7) - value(5), value(6) - value(4))
      const size = SIZE * Math.sqrt(value(2) * value(3))
      const down = DOWN * size
      found.push({
        x: left + x * side + value(0) - down * Math.sin(angle),
        y: top + y * side + value(1) + down * Math.cos(angle),
        size, angle, score,
      })
    })
    return merge(found)
  }
}

/** One detection for each face of several: the mean of those that overlap, weighted by their scores. */
function merge(detections) {
  const left = [...detections].sort((one, other) => other.score - one.score)
  const merged = []
  while (left.length) {
    const best = left[0]
    const same = left.filter((other) => intersectionOverUnion(best, other) > SAME_FACE)
    left.splice(0, left.length, ...left.filter((other) => !same.includes(other)))
    const total = same.reduce((sum, one) => sum + one.score, 0)
    const mean = (key) => same.reduce((sum, one) => sum + one.score * one[key], 0) / total
    merged.push({ ...best, x: mean('x'), y: mean('y'), size: mean('size') })
  }
  return merged
}

function intersectionOverUnion(one, other) {
  const shared = (axis) => Math.max(0, (one.size + other.size) / 2 - Math.abs(one[axis] - other[axis]))
  const area = Math.min(shared('x'), one.size, other.size) * Math.min(shared('y'), one.size, other.size)
  return area / (one.size ** 2 + other.size ** 2 - area)
}

// A picture and a face's landmarks -> the face's crop, small, grey and upright: faces/crops.py.
import { crops, referenceFace } from './constants.js'
import { cut, halve, resizeLinear, toGrey, warp } from './images.js'

const { MOUTH, MIDDLE, CROP_PX, MESH_PX, USUAL_MEAN, USUAL_DEVIATION, LEAST_DEVIATION, GREY_MEAN } = crops
const REFERENCE = referenceFace.map((point) => point.map((value) => value * MESH_PX + CROP_PX / 2))

/** The crop of a face on a picture; landmarks in widths of the picture. */
export function cropFace(picture, landmarks) {
  const points = REFERENCE.map((_, i) => [landmarks[3 * i] * picture.width, landmarks[3 * i + 1] * picture.width])
  let { cosine, sine, x, y } = similarity(points, REFERENCE)
  const { part, left, top } = coveredPart(picture, cosine, sine, x, y)
  x += cosine * left - sine * top
  y += sine * left + cosine * top
  let grey = toGrey(part)
  // Bilinear sampling takes no more than every second pixel in.
  while (Math.hypot(cosine, sine) <= 0.5 && Math.min(grey.width, grey.height) > 1) {
    grey = halve(cut(grey, 0, 0, grey.width & ~1, grey.height & ~1))
    cosine *= 2
    sine *= 2
  }
  // Landmarks count from a pixel's corner, sampling from its middle.
  x += (cosine - sine) / 2 - 0.5
  y += (sine + cosine) / 2 - 0.5
  const norm = cosine ** 2 + sine ** 2
  const [a, b] = [cosine / norm, sine / norm]
  return warp(grey, [a, b, -a * x - b * y, -b, a, b * x - a * y], CROP_PX, true)
}

/** How much contrast the mouth of a crop has against the whole face; below `COVERED_CONTRAST` it is covered. */
export function mouthContrast(crop) {
  const [mouth, face] = [MOUTH, MIDDLE].map((area) => contrastOf(crop, area))
  return ((mouth.deviation + 1) / (face.deviation + 4)) * ((mouth.steps + 0.3) / (face.steps + 0.3))
}

/** Of some rows and columns of a crop: the standard deviation, and the mean step from each row to the next. */
function contrastOf({ data, width }, [[top, bottom], [left, right]]) {
  let [sum, squares, steps] = [0, 0, 0]
  for (let y = top; y < bottom; y++) {
    for (let at = y * width + left; at < y * width + right; at++) {
      sum += data[at]
      squares += data[at] ** 2
      if (y > top) steps += Math.abs(data[at] - data[at - width])
    }
  }
  const count = (bottom - top) * (right - left)
  return {
    deviation: Math.sqrt(Math.max(squares / count - (sum / count) ** 2, 0)),
    steps: steps / (count - (right - left)),
  }
}

/** The move, turn and scale that takes points nearest to a target: (cosine x' - sine y' + x, sine x' + ...). */
function similarity(points, target) {
  const mean = (of, axis) => of.reduce((sum, point) => sum + point[axis], 0) / of.length
  const [middleX, middleY] = [mean(points, 0), mean(points, 1)]
  const [targetX, targetY] = [mean(target, 0), mean(target, 1)]
  let [along, across, norm] = [0, 0, 1e-12]
  points.forEach((point, i) => {
    const [x, y] = [point[0] - middleX, point[1] - middleY]
    const [toX, toY] = [target[i][0] - targetX, target[i][1] - targetY]
    along += x * toX + y * toY
    across += x * toY - y * toX
    norm += x * x + y * y
  })
  const [cosine, sine] = [along / norm, across / norm]
  return {
    cosine, sine,
    x: targetX - cosine * middleX + sine * middleY,
    y: targetY - sine * middleX - cosine * middleY,
  }
}

/** The part of a picture that a crop covers, at least one pixel, and its left and top. */
function coveredPart(picture, cosine, sine, x, y) {
  const norm = Math.max(cosine ** 2 + sine ** 2, 1e-12)
  const corners = [[0, 0], [CROP_PX, 0], [0, CROP_PX], [CROP_PX, CROP_PX]].map(([u, v]) => [
    (cosine * (u - x) + sine * (v - y)) / norm,
    (cosine * (v - y) - sine * (u - x)) / norm,
  ])
  const clip = (value, low, high) => Math.min(Math.max(value, low), high)
  const span = (axis, size) => {
    const values = corners.map((corner) => corner[axis])
    const low = clip(Math.floor(Math.min(...values)) - 2, 0, size - 1)
    return [low, clip(Math.ceil(Math.max(...values)) + 3, low + 1, size)]
  }
  const [[left, right], [top, bottom]] = [span(0, picture.width), span(1, picture.height)]
  return { part: cut(picture, left, top, right, bottom), left, top }
}

/** What a crop network sees of a crop, Float32Array: its middle at the brightness and contrast of a usual
 * photograph, around zero. */
export function networkInput(crop, recipe) {
  const margin = (CROP_PX - recipe.seen_px) >> 1
  const middle = cut(crop, margin, margin, margin + recipe.seen_px, margin + recipe.seen_px)
  const { data } = resizeLinear(middle, recipe.input_px, recipe.input_px)
  const mean = data.reduce((sum, level) => sum + level, 0) / data.length
  const deviation = Math.sqrt(data.reduce((sum, level) => sum + (level - mean) ** 2, 0) / data.length)
  const contrast = USUAL_DEVIATION / (deviation + LEAST_DEVIATION)
  return Float32Array.from(data, (level) =>
    Math.min(Math.max((level - mean) * contrast + USUAL_MEAN, 0), 255) - GREY_MEAN)
}

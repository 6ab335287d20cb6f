// Landmarks -> feature vector: faces/features.py.
//
// Landmarks are 478 x 3 numbers, flat, in units of the picture's width: (x, y * height / width, z).
import { features } from './constants.js'

const { MESH_POINTS, BLENDSHAPES } = features

/** The features of a face by a model's recipe, Float32Array. */
export function computeFeatures(landmarks, blendshapes, recipe) {
  let points = landmarks.subarray(0, 3 * recipe.points)
  if (recipe.kind === 'aligned') {
    const reference = recipe.reference.flat()
    points = align(points, reference).map((value, i) => value - reference[i])
  }
  const values = new Float32Array(points.length + (recipe.blendshapes ? BLENDSHAPES : 0))
  values.set(points)
  if (recipe.blendshapes) values.set(blendshapes, points.length)
  return values
}

/** Points moved, scaled and turned (no reflection) onto a reference, both flat: least squares, Umeyama 1991. */
export function align(points, reference) {
  const [middle, target] = [meanPoint(points), meanPoint(reference)]
  const centred = Float64Array.from(points, (value, i) => value - middle[i % 3])
  const goal = Float64Array.from(reference, (value, i) => value - target[i % 3])
  const turn = rotation(centred, goal)
  let [covered, spread] = [0, 0]
  const turned = new Float64Array(points.length)
  for (let i = 0; i < points.length; i += 3) {
    for (let axis = 0; axis < 3; axis++) {
      const value = turn[axis].reduce((sum, share, k) => sum + share * centred[i + k], 0)
      turned[i + axis] = value
      covered += value * goal[i + axis]
      spread += centred[i + axis] ** 2
    }
  }
  const scale = covered / Math.max(spread, 1e-12)
  return turned.map((value, i) => scale * value + target[i % 3])
}

function meanPoint(points) {
  const sum = [0, 0, 0]
  points.forEach((value, i) => { sum[i % 3] += value })
  return sum.map((value) => (3 * value) / points.length)
}

/** The rotation that lays one set of centred points on another. Horn 1987: the quaternion of n's largest
 * eigenvalue, here by squaring n, which leaves the largest alone. */
function rotation(from, to) {
  const s = [0, 1, 2].map((i) => [0, 1, 2].map((j) => {
    let sum = 0
    for (let k = 0; k < from.length; k += 3) sum += from[k + i] * to[k + j]
    return sum
  }))
  let n = [
    [s[0][0] + s[1][1] + s[2][2], s[1][2] - s[2][1], s[2][0] - s[0][2], s[0][1] - s[1][0]],
    [s[1][2] - s[2][1], s[0][0] - s[1][1] - s[2][2], s[0][1] + s[1][0], s[2][0] + s[0][2]],
    [s[2][0] - s[0][2], s[0][1] + s[1][0], s[1][1] - s[0][0] - s[2][2], s[1][2] + s[2][1]],
    [s[0][1] - s[1][0], s[2][0] + s[0][2], s[1][2] + s[2][1], s[2][2] - s[0][0] - s[1][1]],
  ]
  const shift = Math.max(...n.map((row) => row.reduce((sum, value) => sum + Math.abs(value), 0)))
  n = n.map((row, i) => row.map((value, j) => value + (i === j ? shift : 0)))  // no eigenvalue below zero
  for (let time = 0; time < 20; time++) {
    n = n.map((row) => n[0].map((_, j) => row.reduce((sum, value, k) => sum + value * n[k][j], 0)))
    const largest = Math.max(...n.flat().map(Math.abs), 1e-300)
    n = n.map((row) => row.map((value) => value / largest))
  }
  const best = n.reduce((one, other) => (Math.hypot(...other) > Math.hypot(...one) ? other : one))
  const [w, x, y, z] = best.map((value) => value / (Math.hypot(...best) || 1))
  return [
    [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
  ]
}

/** [x, y, width, height] of the mesh's bounding box, in widths of the picture. */
export function faceBox(landmarks) {
  let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity]
  for (let i = 0; i < 3 * MESH_POINTS; i += 3) {
    left = Math.min(left, landmarks[i])
    right = Math.max(right, landmarks[i])
    top = Math.min(top, landmarks[i + 1])
    bottom = Math.max(bottom, landmarks[i + 1])
  }
  return [left, top, right - left, bottom - top]
}

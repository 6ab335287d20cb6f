// The face of docs/test_vector.json -> probabilities, in Node with onnxruntime-node (docs/model_io.md).
//
//     python scr/export_model.py --formats onnx
//     npm install onnxruntime-node
//     node docs/examples/read_face.mjs [folder of the .onnx files]
import fs from 'node:fs'
import { createRequire } from 'node:module'

const ort = createRequire(import.meta.url)('onnxruntime-node')
const root = new URL('../../', import.meta.url)
const load = (name) => JSON.parse(fs.readFileSync(new URL(name, root)))
const folder = process.argv[2] ?? new URL('models', root).pathname
const info = load('models/emotion_mlp.json')
const vector = load('docs/test_vector.json')

const mean = (values) => values.reduce((a, b) => a + b) / values.length
const middle = (points) => [0, 1, 2].map((axis) => mean(points.map((point) => point[axis])))
const minus = (points, origin) => points.map((point) => point.map((value, axis) => value - origin[axis]))

// Horn 1987: the rotation is the quaternion of the largest eigenvalue of n, found by power iteration.
function rotation(from, to) {
  const s = [0, 1, 2].map((i) => [0, 1, 2].map((j) => from.reduce((sum, p, k) => sum + p[i] * to[k][j], 0)))
  const n = [
    [s[0][0] + s[1][1] + s[2][2], s[1][2] - s[2][1], s[2][0] - s[0][2], s[0][1] - s[1][0]],
    [s[1][2] - s[2][1], s[0][0] - s[1][1] - s[2][2], s[0][1] + s[1][0], s[2][0] + s[0][2]],
    [s[2][0] - s[0][2], s[0][1] + s[1][0], s[1][1] - s[0][0] - s[2][2], s[1][2] + s[2][1]],
    [s[0][1] - s[1][0], s[2][0] + s[0][2], s[1][2] + s[2][1], s[2][2] - s[0][0] - s[1][1]],
  ]
  const shift = Math.max(...n.map((row) => row.reduce((sum, value) => sum + Math.abs(value), 0)))
  let q = [1, 0, 0, 0]
  for (let step = 0; step < 500; step++) {
    q = n.map((row, i) => row.reduce((sum, value, j) => sum + value * q[j], shift * q[i]))
    const length = Math.hypot(...q)
    q = q.map((value) => value / length)
  }
  const [w, x, y, z] = q
  return [
    [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
  ]
}

function features(landmarks, blendshapes) {
  const { reference } = info.features
  const mesh = landmarks.slice(0, 468)
  const goal = middle(reference)
  const [from, to] = [minus(mesh, middle(mesh)), minus(reference, goal)]
  const turn = rotation(from, to)
  const times = (row, point) => row.reduce((sum, value, i) => sum + value * point[i], 0)
  const turned = from.map((point) => turn.map((row) => times(row, point)))
  const dot = (a, b) => a.reduce((sum, p, k) => sum + p[0] * b[k][0] + p[1] * b[k][1] + p[2] * b[k][2], 0)
  const scale = dot(turned, to) / dot(from, from)
  const aligned = turned.map((point, k) => point.map((value, i) => scale * value + goal[i] - reference[k][i]))
  return new ort.Tensor('float32', Float32Array.from([...aligned.flat(), ...blendshapes]), [1, 1456])
}

function pixels(crop) {  // the middle 88 of 120 pixels, enlarged to 160 by bilinear interpolation
  const at = Array.from({ length: 160 }, (_, i) => Math.min(Math.max((i + 0.5) * 0.55 - 0.5, 0), 87))
  const seen = (x, y) => crop[(16 + Math.min(y, 87)) * 120 + 16 + Math.min(x, 87)]
  const values = at.flatMap((y) => at.map((x) => {
    const [left, top] = [Math.floor(x), Math.floor(y)]
    const row = (line) => seen(left, line) * (1 - x + left) + seen(left + 1, line) * (x - left)
    return Math.round(row(top) * (1 - y + top) + row(top + 1) * (y - top))
  }))
  const average = mean(values)
  const deviation = Math.sqrt(mean(values.map((value) => (value - average) ** 2)))
  const even = values.map((value) => ((value - average) * 55) / (deviation + 4) + 118)
  const input = even.map((value) => Math.min(Math.max(value, 0), 255) - 117)
  return new ort.Tensor('float32', Float32Array.from(input), [1, 160, 160, 1])
}

const normalised = (logs) => {
  const values = logs.map(Math.exp)
  return values.map((value) => value / values.reduce((a, b) => a + b))
}
const landmarkNetwork = await ort.InferenceSession.create(`${folder}/emotion_mlp.onnx`)
const cropNetwork = await ort.InferenceSession.create(`${folder}/emotion_crop.onnx`)
const byLandmarks = await landmarkNetwork.run({ features: features(vector.landmarks, vector.blendshapes) })
const byCrop = await cropNetwork.run({ crop: pixels(Buffer.from(vector.crop, 'base64')) })
const { landmarks, crop } = info.weights
const { classes, temperature } = info.vocabularies?.[0] ?? info  // the default; info has those of all classes
const logs = classes.map((name) => info.classes.indexOf(name)).map((i) =>
  (landmarks * Math.log(byLandmarks.probabilities.data[i]) + crop * Math.log(byCrop.probabilities.data[i]))
  / temperature)
const probabilities = normalised(logs)
console.log(JSON.stringify(Object.fromEntries(classes.map((name, i) => [name, probabilities[i]]))))
const difference = Math.max(...probabilities.map((value, i) => Math.abs(value - vector.probabilities.hybrid[i])))
console.error(`main.py's probabilities differ by ${difference.toExponential(1)}`)
process.exitCode = difference < 0.01 ? 0 : 1

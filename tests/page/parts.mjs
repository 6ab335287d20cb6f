// Runs the page's own modules in Node for test_parts.py: a case (JSON on stdin) -> what each makes of it.
//
//     node parts.mjs PAGE_FOLDER < case.json
import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const load = (name) => import(pathToFileURL(path.resolve(process.argv[2], name)))
const names = ['images', 'detection', 'tracking', 'features', 'crops', 'smoothing', 'pipeline', 'table']
const modules = await Promise.all(names.map((name) => load(`${name}.js`)))
const [images, detection, tracking, features, crops, smoothing, pipeline, table] = modules
const given = JSON.parse(fs.readFileSync(0))
const bytes = (text) => new Uint8Array(Buffer.from(text, 'base64'))
const picture = { ...given.picture, data: bytes(given.picture.data) }
const encoded = (one) => Buffer.from(one.data).toString('base64')
const float = (values) => Float32Array.from(values)
const { width, height } = picture
const whole = (right, bottom) => images.cut(picture, 0, 0, right, bottom)
const landmarks = float(given.landmarks.flat())
const [box, other] = [given.region, given.other].map((region) => new detection.RotatedBox(...region))

const pictures = {
  halved_even: images.halve(whole(width & ~1, height & ~1)),
  halved_odd: images.halve(whole(width | 1, height | 1)),
  shrunk: images.shrink(picture, 0.37),
  enlarged: images.resizeLinear(whole(88, 88), 160, 160),
  grey: images.toGrey(picture),
  bright: images.brighten({ ...picture, data: picture.data.map((value) => value >> 4) }),
  region: box.cut(picture, 256, 100),
  crop: crops.cropFace(picture, landmarks),
}
const smoother = new smoothing.EmotionSmoother(given.classes, given.threshold, 300)
const filter = new tracking.PointFilter(float(given.points[0]), 0)
const sheet = new table.Table(['a', 'b,"c'])
sheet.add('=1+1.jpg', 0, null, [])
sheet.add('x', 1, 40, [{
  face: 0, box: [1, 2, 3, 4], emotion: 'a', confidence: 0.6, probabilities: Float32Array.of(0.6, 0.4),
}])
console.log(JSON.stringify({
  pictures: Object.fromEntries(Object.entries(pictures).map(([name, one]) => [name, encoded(one)])),
  features: [...features.computeFeatures(landmarks, float(given.blendshapes), given.recipe)],
  mouth: crops.mouthContrast(pictures.crop),
  input: [...crops.networkInput(pictures.crop, given.cropRecipe)],
  labels: given.moments.map(([timestampMs, probabilities]) => smoother.update(float(probabilities), timestampMs)),
  smoothed: given.points.map((points, i) => [...filter.update(float(points), 80, 40 * i)]),
  change: tracking.change(...[box, other].map((region) => tracking.appearanceOf(picture, region))),
  box: pipeline.boxPx(features.faceBox(landmarks), picture),
  csv: sheet.toCsv(),
}))

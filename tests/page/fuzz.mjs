// Damages a model's JSON in every place, one at a time: each time the page must take it or say what is wrong.
//
//     node fuzz.mjs CLASSIFIER_JS < model.json
import fs from 'node:fs'
import { pathToFileURL } from 'node:url'

const { checkInfo } = await import(pathToFileURL(process.argv[2]))
const text = fs.readFileSync(0, 'utf8')
const junk = [null, -1, 1e300, '', 'x', [], {}, true, '<b>', [[]], { length: 1e9 }]
const counts = { taken: 0, refused: 0, failed: [] }

function* places(value, path = []) {
  yield path
  const keys = Array.isArray(value) ? [0, value.length - 1] : Object.keys(value ?? {})
  if (value && typeof value === 'object') for (const key of keys) yield* places(value[key], [...path, key])
}

checkInfo(JSON.parse(text))
for (const path of places(JSON.parse(text))) {
  for (const one of [...junk, undefined]) {
    const info = JSON.parse(text)
    const last = path.at(-1)
    const place = path.slice(0, -1).reduce((value, key) => value[key], info)
    if (path.length) place[last] = one
    try {
      checkInfo(path.length ? info : one)
      counts.taken++
    } catch (error) {
      if (error.message.startsWith('model.json is damaged: ')) counts.refused++
      else counts.failed.push(`${path.join('.')} = ${JSON.stringify(one)}: ${error.message}`)
    }
  }
}
console.log(JSON.stringify(counts))

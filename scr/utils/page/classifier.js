// Faces -> probabilities: model/classifier.py.
import { crops, features as recipes } from './constants.js'
import { networkInput } from './crops.js'
import { computeFeatures } from './features.js'
import { Network, fetchBytes } from './runtime.js'

const { CROP_PX } = crops
const { ALL_POINTS } = recipes
const LEAST_PROBABILITY = 1e-9
/** No number of a recipe comes near it. */
const LARGEST = 1e6

/** A trained model: landmarks and crops in, probabilities out. */
export class EmotionClassifier {
  /**
   * The model that `model.json` and the networks beside the page are; throws an Error that says what is wrong.
   * wanted: names of a vocabulary, `fear,happy`, or `all`; else the first one is read.
   */
  static async open(wanted) {
    const info = checkInfo(JSON.parse(new TextDecoder().decode(await fetchBytes('model.json'))))
    const networks = {}
    for (const [kind, part] of Object.entries(info.parts)) {
      networks[kind] = await Network.open(await fetchBytes(`networks/${kind}.tflite`, part.sha256))
    }
    return new EmotionClassifier(info, networks, wanted)
  }

  constructor(info, networks, wanted) {
    const { name, colours, personal, vocabularies } = info
    const names = wanted === 'all' ? info.classes.join() : wanted
    const vocabulary = vocabularies.find((one) => one.classes.join() === names) ?? vocabularies[0]
    Object.assign(this, { info, networks, name, colours, personal, vocabularies, ...vocabulary })
    this.columns = this.classes.map((one) => info.classes.indexOf(one))
    this.needsCrops = 'crop' in networks
  }

  /** What the crop network makes of a crop: probabilities of all its classes, and its last hidden layer. */
  async predictCrop(crop) {
    const network = this.networks.crop
    const outputs = await network.run(networkInput(crop, this.info.parts.crop.features))
    const [embedding] = outputs.filter((_, i) => network.outputs[i] === 'embedding')
    return { probabilities: outputs.find((output) => output !== embedding), embedding }
  }

  /** The probabilities of a face's classes; cropOutput: of `predictCrop`, where the model needs crops. */
  async predict(landmarks, blendshapes, cropOutput) {
    const { landmarks: part } = this.info.parts
    if (!part) return this.readOut([[1, cropOutput.probabilities]])
    const features = computeFeatures(landmarks, blendshapes, part.features)
    const joint = part.features.embedding  // a personal model: its last layer sees both
    const input = joint ? Float32Array.from([...features, ...cropOutput.embedding]) : features
    const [ofLandmarks] = await this.networks.landmarks.run(input)
    if (joint || !this.needsCrops) return this.readOut([[1, ofLandmarks]])
    const { weights } = this.info
    return this.readOut([[weights.landmarks, ofLandmarks], [weights.crop, cropOutput.probabilities]])
  }

  /** The probabilities of the vocabulary's classes, from those of all classes, as `mix` takes them. */
  readOut(parts) {
    return mix(parts.map(([weight, values]) => [weight, this.columns.map((i) => values[i])]), this.temperature)
  }
}

/** A model's JSON as it is, or an Error that says what is wrong with it. */
export function checkInfo(info) {
  const need = (holds, what) => { if (!holds) throw new Error(`model.json is damaged: ${what}`) }
  need(isMap(info) && isText(info.name), 'it names no model')
  const { classes, colours, parts, weights, vocabularies } = info
  const isClasses = (names) => Array.isArray(names) && names.length > 1 && names.every(isText)
    && new Set(names).size === names.length
  const isVocabulary = (one) => isMap(one) && isClasses(one.classes) && isNumber(one.threshold, 0, 1)
    && isNumber(one.temperature, 0.01, 100) && one.classes.every((name) => classes.includes(name))
  need(isClasses(classes), 'classes')
  need(Array.isArray(vocabularies) && vocabularies.length > 0 && vocabularies.every(isVocabulary), 'vocabularies')
  need(isMap(colours) && classes.every((name) => isTriple(colours[name], 0, 255)), 'colours')
  need(isMap(parts) && Object.keys(parts).length > 0, 'no network')
  const checks = { landmarks: isLandmarkRecipe, crop: isCropRecipe }
  for (const [kind, part] of Object.entries(parts)) {
    need(isMap(part) && isMap(part.features) && checks[kind]?.(part.features), `network ${kind}`)
  }
  const joint = parts.landmarks?.features.embedding
  need(!joint || parts.crop, 'the crop network is missing')
  if (parts.landmarks && parts.crop && !joint) {
    need(isMap(weights) && isNumber(weights.landmarks, 0, 1) && isNumber(weights.crop, 0, 1), 'weights')
  }
  return info
}

const isMap = (value) => value !== null && typeof value === 'object' && !Array.isArray(value)
const isText = (value) => typeof value === 'string' && value !== ''
const isNumber = (value, low, high) => typeof value === 'number' && value >= low && value <= high
const isTriple = (values, low, high) =>
  Array.isArray(values) && values.length === 3 && values.every((value) => isNumber(value, low, high))

function isLandmarkRecipe({ kind, points, reference }) {
  const isReference = () => Array.isArray(reference) && reference.length === points
    && reference.every((point) => isTriple(point, -LARGEST, LARGEST))
  return isNumber(points, 1, ALL_POINTS) && (kind === 'raw' || (kind === 'aligned' && isReference()))
}

const isCropRecipe = ({ seen_px: seen, input_px: side }) => isNumber(seen, 1, CROP_PX) && isNumber(side, 1, 1024)

/** The probabilities of networks as one: their weighted geometric mean. */
export function mix(parts, temperature) {
  const log = (value) => Math.log(Math.max(value, LEAST_PROBABILITY))
  const logits = parts[0][1].map((_, i) =>
    parts.reduce((sum, [weight, values]) => sum + weight * log(values[i]), 0) / temperature)
  const largest = Math.max(...logits)
  const values = logits.map((logit) => Math.exp(logit - largest))
  const total = values.reduce((sum, value) => sum + value, 0)
  return values.map((value) => value / total)
}

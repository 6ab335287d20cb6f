// The sole owner of LiteRT.js: a `.tflite` file -> a network that runs.
import { Tensor, loadAndCompile, loadLiteRt } from './runtime/litert.js'

let loading = null

/** Loads LiteRT.js; of what it reports only problems reach the console. */
function load() {
  globalThis.Module = {
    printErr: (line) => { if (!/^(INFO|WARNING)/.test(line)) console.error(line) },
  }
  return loadLiteRt(new URL('runtime/litert_wasm.js', import.meta.url).href)
}

/** A network for one face at a time: float32 in, float32 out. */
export class Network {
  static async open(content) {
    await (loading ??= load())
    return new Network(await loadAndCompile(content, { accelerator: 'wasm' }))
  }

  constructor(model) {
    this.model = model
    this.shape = Array.from(model.getInputDetails()[0].shape)
    this.outputs = model.getOutputDetails().map((output) => output.name)
  }

  /** What the network makes of its input: a Float32Array for each of its outputs. */
  async run(values) {
    const input = new Tensor(values, this.shape)
    const outputs = await this.model.run([input])
    input.delete()
    return outputs.map((output) => {
      const result = output.toTypedArray().slice()
      output.delete()
      return result
    })
  }
}

/** The bytes of a file beside the page; of another sha256 they are refused. */
export async function fetchBytes(name, sha256) {
  const response = await fetch(new URL(name, import.meta.url))
  if (!response.ok) throw new Error(`${name} is missing (${response.status})`)
  const content = new Uint8Array(await response.arrayBuffer())
  if (sha256 && globalThis.crypto?.subtle) {  // browsers have it at secure addresses only
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', content))
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
    if (found !== sha256) throw new Error(`${name} is damaged, or of another model`)
  }
  return content
}

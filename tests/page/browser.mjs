// Drives the page in Chromium for test_page.py: prints a line of JSON with what each check saw.
//
//     node browser.mjs PAGE_ADDRESS FOLDER CHECK...     FOLDER: of clip.y4m, pictures, and of what is written
import fs from 'node:fs'
import path from 'node:path'
import { createRequire } from 'node:module'

const { chromium } = createRequire(import.meta.url)('playwright-core')
const [address, folder, ...wanted] = process.argv.slice(2)
const file = (name) => path.join(folder, name)
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: [
    '--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
    `--use-file-for-fake-video-capture=${file('clip.y4m')}`,
  ],
})

/** A page in a context of its own; what it asks for and complains of is noted. */
async function open({ ready = true, init, route, ...options } = {}) {
  const context = await browser.newContext(options)
  const page = await context.newPage()
  const noted = { requests: [], complaints: [] }
  context.on('request', (request) => noted.requests.push(request.url()))
  context.on('console', (message) => { if (message.type() === 'error') noted.complaints.push(message.text()) })
  page.on('pageerror', (error) => noted.complaints.push(error.message))
  if (init) await page.addInitScript(init)
  for (const [name, body] of Object.entries(route ?? {})) {
    await context.route(`**/${name}`, (one) => one.fulfill({ body }))
  }
  await page.goto(address)
  if (ready) await page.waitForSelector('body[data-ready]', { timeout: 60_000 })
  return { context, page, noted }
}

/** One page for the checks that leave no trace. */
let kept = null
const shared = async () => (kept ??= await open())

const text = (page, id) => page.locator(`#${id}`).textContent()
const frames = (page) => page.evaluate(() => Number(document.body.dataset.frames ?? 0))
const own = [address, `blob:${address}`, 'data:']
const outside = (noted) => noted.requests.filter((url) => !own.some((start) => url.startsWith(start)))

/** Does something and waits until so many frames more were read; gives their rate. */
async function afterwards(page, count, action = () => {}) {
  const before = await frames(page)
  const start = Date.now()
  await action()
  await page.waitForFunction((wanted) => Number(document.body.dataset.frames ?? 0) >= wanted, before + count,
    { timeout: 60_000 })
  return (1000 * count) / (Date.now() - start)
}

const checks = {
  /** The test vector's probabilities: of all classes by each network, and of those that the model reads. */
  async vector() {
    const { page } = await shared()
    const result = await page.evaluate(async (vector) => {
      const { EmotionClassifier } = await import('./classifier.js')
      const { computeFeatures } = await import('./features.js')
      const classifier = await EmotionClassifier.open()
      const crop = { data: Uint8Array.from(atob(vector.crop), (byte) => byte.charCodeAt(0)), width: 120, height: 120 }
      const output = await classifier.predictCrop(crop)
      const landmarks = Float32Array.from(vector.landmarks.flat())
      const blendshapes = Float32Array.from(vector.blendshapes)
      const features = computeFeatures(landmarks, blendshapes, classifier.info.parts.landmarks.features)
      return {
        crop: [...output.probabilities],
        landmarks: [...(await classifier.networks.landmarks.run(features))[0]],
        hybrid: [...await classifier.predict(landmarks, blendshapes, output)],
      }
    }, JSON.parse(fs.readFileSync(file('test_vector.json'))))
    return result
  },

  /** Label and probabilities of each frame of some clips, whose pixels are served beside the page. */
  async clips() {
    const { page } = await shared()
    const result = await page.evaluate(async () => {
      const { FaceReader } = await import('./pipeline.js')
      const reader = await FaceReader.open()
      const clips = await (await fetch('clips.json')).json()
      const predictions = {}
      for (const [name, { width, height, times }] of Object.entries(clips)) {
        reader.begin(1, 0)
        predictions[name] = []
        for (const [index, timestampMs] of times.entries()) {
          const pixels = await (await fetch(`${name}-${index}.rgba`)).arrayBuffer()
          const [face] = await reader.read({ data: new Uint8Array(pixels), width, height }, timestampMs)
          predictions[name].push(face ? [face.emotion, ...face.probabilities] : null)
        }
      }
      return predictions
    })
    return result
  },

  /** The camera, a dropped picture, several pictures, a video, saving; requests to other addresses. */
  async use() {
    const { context, page, noted } = await open({ acceptDownloads: true })
    await page.screenshot({ path: file('start.png') })
    await page.evaluate(() => {
      globalThis.announced = 0
      const observer = new MutationObserver(() => { globalThis.announced++ })
      observer.observe(document.getElementById('status'), { childList: true })
    })
    await afterwards(page, 10, () => page.click('#start'))
    const result = { rate: await afterwards(page, 40), camera: await text(page, 'emotion') }
    result.announced = await page.evaluate(() => globalThis.announced)
    await page.screenshot({ path: file('camera.png') })
    result.cameras = await page.locator('#camera option').count()
    await page.keyboard.press('m')
    result.mirrored = await page.getAttribute('#mirror', 'aria-pressed')
    await page.click('#pause')
    const paused = await frames(page)
    await page.waitForTimeout(400)
    result.readWhilePaused = await frames(page) - paused
    const download = async (id) => {
      const [saved] = await Promise.all([page.waitForEvent('download'), page.click(`#${id}`)])
      return fs.readFileSync(await saved.path())
    }
    result.csv = (await download('table')).toString()
    fs.writeFileSync(file('saved.png'), await download('save'))
    await page.evaluate(async () => {
      const blob = await (await fetch('group.jpg')).blob()
      const transfer = new DataTransfer()
      transfer.items.add(new File([blob], '<b>group.jpg', { type: 'image/jpeg' }))
      document.dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }))
    })
    await page.waitForFunction(() => document.querySelectorAll('#others li').length > 0, null, { timeout: 60_000 })
    result.group = 1 + await page.locator('#others li').count()
    result.message = await text(page, 'message')
    await page.screenshot({ path: file('group.png') })
    await afterwards(page, 1, () => page.setInputFiles('#files', [file('portrait.jpg'), file('smile.mp4')]))
    result.portrait = await text(page, 'emotion')
    await afterwards(page, 5, () => page.click('#next'))
    result.video = await text(page, 'emotion')
    await page.click('#stop')
    result.stopped = await page.isVisible('#start')
    result.outside = outside(noted)
    result.complaints = [...noted.complaints]
    result.refused = await page.evaluate(() => new Promise((resolve) => {
      document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective))
      fetch('https://example.org/').catch(() => {})
    }))
    await context.close()
    return result
  },

  /** Which expressions are told apart at first, when others are chosen, and at the address that asks for all. */
  async vocabularies() {
    const route = { 'model.json': fs.readFileSync(file('choices.json')) }
    const { context, page } = await open({ route, serviceWorkers: 'block' })
    const ready = () => page.waitForSelector('body[data-ready]', { timeout: 60_000 })
    const shown = async () => [
      await page.locator('#bars li span:first-child').allTextContents(),
      await page.locator('#classes option:checked').textContent(),
    ]
    const result = { first: await shown() }
    await Promise.all([page.waitForNavigation(), page.selectOption('#classes', { index: 1 })])
    await ready()
    result.chosen = await shown()
    await page.goto(`${address}?classes=all`)
    await ready()
    result.all = await shown()
    await afterwards(page, 1, () => page.setInputFiles('#files', [file('portrait.jpg')]))
    result.emotion = await text(page, 'emotion')
    const shares = await page.locator('#bars li span:nth-child(2)').allTextContents()
    result.shares = shares.reduce((sum, share) => sum + parseFloat(share), 0)
    await context.close()
    return result
  },

  /** The camera runs for `WATCH_MS`: requests. */
  async watch() {
    const { context, page, noted } = await open()
    await afterwards(page, 5, () => page.click('#start'))
    const memory = () => page.evaluate(() => Math.round(performance.memory.usedJSHeapSize / 1e6))
    const before = await memory()
    const rate = await afterwards(page, 100)
    await page.waitForTimeout(Number(process.env.WATCH_MS ?? 1000))
    const heapMb = [before, await memory()]
    await afterwards(page, 1, () => page.setInputFiles('#files', [file('group.jpg')]))
    const [read, requests] = [await frames(page), noted.requests.length]
    const result = { rate, heapMb, frames: read, requests, outside: outside(noted) }
    await context.close()
    return result
  },

  /** Without a network, once the page was there. */
  async offline() {
    const { context, page } = await open()
    await page.evaluate(() => navigator.serviceWorker.ready)
    await context.setOffline(true)
    await page.reload()
    await page.waitForSelector('body[data-ready]', { timeout: 60_000 })
    await afterwards(page, 1, () => page.setInputFiles('#files', [file('group.jpg')]))
    const result = { emotion: await text(page, 'emotion') }
    await context.close()
    return result
  },

  /** Messages where the camera fails, is unplugged and comes back, and where a phone is turned. */
  async cameraProblems() {
    const messages = {}
    const init = () => {
      const media = navigator.mediaDevices
      const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 })
      const drawing = canvas.getContext('2d')
      setInterval(() => {
        drawing.fillStyle = `hsl(${Date.now() % 360} 50% 50%)`
        drawing.fillRect(0, 0, 640, 640)
      }, 50)
      globalThis.turn = () => Object.assign(canvas, { width: 360, height: 640 })
      media.getUserMedia = async () => {
        if (globalThis.cameraError) throw new DOMException('', globalThis.cameraError)
        globalThis.stream = canvas.captureStream(20)
        return globalThis.stream
      }
    }
    const { context, page, noted } = await open({ init })
    const names = ['NotAllowedError', 'NotFoundError', 'NotReadableError', 'OverconstrainedError', 'OddError']
    for (const name of names) {
      await page.evaluate((error) => { globalThis.cameraError = error }, name)
      await page.click('#start')
      await page.waitForFunction(() => document.getElementById('message').textContent)
      messages[name] = await text(page, 'message')
    }
    await page.evaluate(() => { globalThis.cameraError = null })
    await afterwards(page, 3, () => page.click('#start'))
    await page.evaluate(() => globalThis.turn())
    await afterwards(page, 5)
    messages.turned = await page.evaluate(() => ['picture', 'overlay'].map((id) => document.getElementById(id).width))
    const other = await context.newPage()
    await other.bringToFront()
    await page.waitForTimeout(300)
    await page.bringToFront()
    await afterwards(page, 3)
    await page.evaluate(() => globalThis.stream.getVideoTracks()[0].dispatchEvent(new Event('ended')))
    messages.unplugged = await text(page, 'message')
    await page.evaluate(() => navigator.mediaDevices.dispatchEvent(new Event('devicechange')))
    await afterwards(page, 3)
    messages.back = await text(page, 'message')
    messages.complaints = noted.complaints
    await context.close()
    const insecure = await open({ init: () => Object.defineProperty(navigator, 'mediaDevices', { value: undefined }) })
    await insecure.page.click('#start')
    messages.insecure = await text(insecure.page, 'message')
    await insecure.context.close()
    return messages
  },

  /** Files that are no pictures: each a line, and the page goes on. */
  async badFiles() {
    const { page, noted } = await shared()
    const messages = {}
    for (const name of fs.readdirSync(file('bad'))) {
      await page.setInputFiles('#files', [file(`bad/${name}`)])
      await page.waitForFunction((start) => document.getElementById('message').textContent.startsWith(start)
        && document.getElementById('message').className === '', name, { timeout: 20_000 }).catch(() => {})
      messages[name] = await text(page, 'message')
    }
    await afterwards(page, 1, () => page.setInputFiles('#files', [file('group.jpg')]))
    const result = { messages, after: await text(page, 'emotion'), complaints: noted.complaints }
    return result
  },

  /** Damaged and hostile models, and a damaged network: each a line. */
  async badModels() {
    const messages = []
    const routes = JSON.parse(fs.readFileSync(file('models.json'))).map((body) => ({ 'model.json': body }))
    for (const route of [...routes, { 'crop.tflite': 'x' }]) {
      const { context, page } = await open({ ready: false, route })
      await page.waitForFunction(() => document.getElementById('message').textContent || document.body.dataset.ready,
        null, { timeout: 30_000 })
      messages.push(await text(page, 'message') || {
        names: await page.locator('#bars li span:first-child').allTextContents(),
        title: await page.title(),
        elements: await page.locator('#panel img').count(),
      })
      await context.close()
    }
    return messages
  },

  /** Overflow, names and contrast at three widths in both themes; pictures of each. */
  async looks() {
    const found = []
    const { page } = await shared()
    await afterwards(page, 1, () => page.setInputFiles('#files', [file('portrait.jpg')]))
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme })
      for (const width of [360, 768, 1280]) {
        await page.setViewportSize({ width, height: 900 })
        await page.waitForTimeout(100)
        await page.screenshot({ path: file(`look-${colorScheme}-${width}.png`), fullPage: true })
        found.push({ colorScheme, width, ...await page.evaluate(judge) })
      }
    }
    return found
  },
}

/** In the page: texts of low contrast (WCAG 2.2 AA), controls without a name, pixels beyond the window. */
function judge() {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number)
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const value = numbers(getComputedStyle(at).backgroundColor)
      if (value[3] !== 0) return value
    }
    return [255, 255, 255]
  }
  const luminance = (colour) => colour.slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0)
  const low = []
  for (const element of document.querySelectorAll('h1, p, button, label, select, span, kbd, a')) {
    if (!element.checkVisibility() || !element.textContent.trim() || element.disabled) continue
    const style = getComputedStyle(element)
    const pair = [numbers(style.color), background(element)].map(luminance).sort((a, b) => b - a)
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05)
    const least = parseFloat(style.fontSize) >= 24 ? 3 : 4.5
    if (contrast < least) low.push(`${element.id || element.tagName} ${contrast}`)
  }
  const unnamed = [...document.querySelectorAll('button, select, input')]
    .filter((one) => !one.hidden && !(one.textContent.trim() || one.labels?.length || one.ariaLabel)).length
  return { low, unnamed, overflow: document.documentElement.scrollWidth - innerWidth }
}

const results = {}
for (const name of wanted) {
  results[name] = await checks[name]().catch((error) => ({ failed: error.message.slice(0, 2000) }))
}
console.log(JSON.stringify(results))
await browser.close()

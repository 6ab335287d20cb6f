// What is seen of the readings: boxes and labels over the picture, bars, the last ten seconds. The window's
// counterpart (app/windows), in its colours. Names of classes are text, never HTML.
import { canvas as theme, features, live_view } from './constants.js'

const { INK, DIM, FAINT, PAPER, UNSURE } = theme
const { PANEL_MS } = live_view
const { MESH_POINTS } = features
/** Of the time line. */
const SPAN_MS = 10_000
/** How long a label stands before it is announced to screen readers, and the least time between two of them. */
const STEADY_MS = 1500
const ANNOUNCE_MS = 4000

const byId = (id) => document.getElementById(id)
export const toCss = ([blue, green, red]) => `rgb(${red}, ${green}, ${blue})`
const elements = (...tags) => tags.map((tag) => document.createElement(tag))
const percent = (share) => `${Math.round(100 * share)}%`

/** Draws readings; `mirror` and `showPoints` may be set at any time. */
export class View {
  constructor(classes, colours) {
    Object.assign(this, { classes, colours, mirror: false, showPoints: false, results: [], moments: [], figures: [] })
    this.overlay = byId('overlay').getContext('2d')
    this.timeline = byId('timeline').getContext('2d')
    this.shownMs = -Infinity
    this.announced = { text: '', sinceMs: 0, atMs: -Infinity, lastText: '' }
    new ResizeObserver(() => this.drawOverlay()).observe(byId('overlay'))
    for (const [name, colour] of Object.entries({ ink: INK, dim: DIM, faint: FAINT, paper: PAPER })) {
      document.documentElement.style.setProperty(`--${name}`, toCss(colour))
    }
    this.bars = classes.map((name) => {
      const [row, title, figure, bar, filled] = elements('li', 'span', 'span', 'div', 'div')
      title.textContent = title.title = name
      bar.className = 'bar'
      filled.style.backgroundColor = toCss(colours[name])
      bar.append(filled)
      row.append(title, figure, bar)
      byId('bars').append(row)
      return { figure, filled }
    })
  }

  colourOf(emotion) {
    return toCss(this.colours[emotion] ?? UNSURE)
  }

  /** Forgets what was shown of another source. */
  clear() {
    this.moments = []
    this.draw([], null, '')
    byId('emotion').textContent = ''
    Object.assign(this, { shownMs: -Infinity })
  }

  /** Shows the readings of a frame, the main one first; timestampMs: null for still pictures. */
  draw(results, timestampMs, caption) {
    this.results = results
    const [main] = results
    const colour = main ? this.colourOf(main.emotion) : toCss(UNSURE)
    if (timestampMs !== null) this.addMoment(timestampMs, main?.confidence ?? 0, colour)
    const now = performance.now()
    // Numbers that dance at 30 a second can't be read.
    const isDue = timestampMs === null || now - this.shownMs >= PANEL_MS
    if (isDue) this.figures = Object.fromEntries(results.map(({ face, confidence }) => [face, confidence]))
    this.drawOverlay()
    if (!isDue) return
    this.shownMs = now
    byId('emotion').textContent = main ? nameOf(main, results.length > 1) : 'no face'
    byId('emotion').style.color = colour
    byId('confidence').textContent = main ? percent(main.confidence) : ''
    this.bars.forEach(({ figure, filled }, i) => {
      const share = main ? main.probabilities[i] : 0
      figure.textContent = main ? percent(share) : ''
      filled.style.width = percent(share)
    })
    byId('others').replaceChildren(...results.slice(1).map((result) => {
      const [row, name, figure] = elements('li', 'span', 'span')
      name.textContent = nameOf(result, true)
      name.style.color = this.colourOf(result.emotion)
      figure.textContent = percent(result.confidence)
      row.append(name, figure)
      return row
    }))
    byId('speed').textContent = caption
    byId('timeline').hidden = timestampMs === null
    this.drawTimeline()
    this.announce(results.map((result) => nameOf(result, results.length > 1)).join(', ') || 'no face', now)
  }

  /** Announces what is seen to screen readers, once it stands still, and not too often. */
  announce(text, now) {
    const { announced } = this
    if (text !== announced.text) Object.assign(announced, { text, sinceMs: now })
    const steady = now - announced.sinceMs >= STEADY_MS || this.moments.length === 0
    if (!steady || now - announced.atMs < ANNOUNCE_MS || text === announced.lastText) return
    Object.assign(announced, { atMs: now, lastText: text })
    byId('status').textContent = text
    byId('overlay').setAttribute('aria-label', `Picture: ${text}`)
  }

  drawOverlay(context = this.overlay, mirror = this.mirror) {
    const { width, height } = context.canvas
    if (context === this.overlay) context.clearRect(0, 0, width, height)
    // Of one pixel on the screen, so that lines and letters have one size whatever the picture's.
    const unit = width / (byId('overlay').clientWidth || width)
    const size = 16 * unit
    for (const result of this.results) {
      const [x, y, w, h] = result.box
      const left = mirror ? width - x - w : x
      context.strokeStyle = context.fillStyle = this.colourOf(result.emotion)
      context.lineWidth = 2 * unit
      context.strokeRect(left, y, w, h)
      if (this.showPoints) {
        for (let i = 0; i < 3 * MESH_POINTS; i += 3) {
          const across = result.landmarks[i] * width
          context.fillRect(mirror ? width - across : across, result.landmarks[i + 1] * width, unit, unit)
        }
      }
      context.font = `600 ${size}px system-ui, sans-serif`
      const confidence = this.figures[result.face] ?? result.confidence
      const text = `${nameOf(result, this.results.length > 1)} ${percent(confidence)}`
      const wide = Math.min(context.measureText(text).width, width) + 0.6 * size
      const tagLeft = Math.min(Math.max(left, 0), Math.max(width - wide, 0))
      const tagTop = y >= 1.5 * size ? y - 1.5 * size : Math.min(y + h, height - 1.5 * size)
      context.fillRect(tagLeft, tagTop, wide, 1.5 * size)
      context.fillStyle = toCss(PAPER)
      context.fillText(text, tagLeft + 0.3 * size, tagTop + 1.1 * size, width)
    }
  }

  addMoment(timestampMs, confidence, colour) {
    if (timestampMs < this.moments.at(-1)?.timestampMs) this.moments = []
    this.moments.push({ timestampMs, confidence, colour })
    const kept = this.moments.findIndex((moment) => moment.timestampMs > timestampMs - SPAN_MS)
    if (kept > 1) this.moments.splice(0, kept - 1)
  }

  /** The last ten seconds as a strip: its colour is the emotion, its height the confidence. */
  drawTimeline() {
    const { timeline, moments } = this
    const { canvas } = timeline
    const ratio = globalThis.devicePixelRatio || 1
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)]
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height })
    timeline.fillStyle = toCss(FAINT)
    timeline.fillRect(0, 0, width, height)
    const now = moments.at(-1)?.timestampMs
    moments.forEach(({ timestampMs, confidence, colour }, i) => {
      const x = (age) => Math.round(width * (1 - age / SPAN_MS))
      const left = Math.max(x(now - timestampMs), 0)
      const right = i + 1 < moments.length ? x(now - moments[i + 1].timestampMs) : width
      timeline.fillStyle = colour
      timeline.fillRect(left, height * (1 - confidence), Math.max(right - left, 1), height * confidence)
    })
  }

  /** A canvas with a picture and what is drawn over it, as it is shown. */
  compose(picture) {
    const whole = document.createElement('canvas')
    Object.assign(whole, { width: picture.width, height: picture.height })
    const context = whole.getContext('2d')
    if (this.mirror) context.setTransform(-1, 0, 0, 1, picture.width, 0)
    context.drawImage(picture, 0, 0)
    context.resetTransform()
    this.drawOverlay(context)
    return whole
  }
}

function nameOf(result, several) {
  return several ? `${result.face}  ${result.emotion}` : result.emotion
}

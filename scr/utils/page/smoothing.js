// Probabilities frame by frame -> a calm label for each face: app/smoothing.py.
import { smoothing } from './constants.js'

const { UNCERTAIN, MARGIN, RESET_MS } = smoothing

/** Exponential smoothing with hysteresis for one face; the same response in time at any frame rate. */
export class EmotionSmoother {
  constructor(classes, threshold, timeConstantMs) {
    Object.assign(this, { classes, threshold, timeConstantMs, probabilities: null, label: null, timestampMs: 0 })
  }

  /** Takes the probabilities of a moment; gives the label and its smoothed probability. */
  update(probabilities, timestampMs) {
    if (this.probabilities === null || this.timeConstantMs <= 0) {
      this.probabilities = probabilities
    } else {
      const keep = Math.exp((this.timestampMs - timestampMs) / this.timeConstantMs)
      this.probabilities = this.probabilities.map((value, i) => keep * value + (1 - keep) * probabilities[i])
    }
    this.timestampMs = timestampMs
    const largest = Math.max(...this.probabilities)
    this.label = this.nextLabel(this.probabilities.indexOf(largest))
    return this.label === null ? [UNCERTAIN, largest] : [this.classes[this.label], this.probabilities[this.label]]
  }

  nextLabel(best) {
    const [smoothed, label] = [this.probabilities, this.label]
    if (label !== null && smoothed[label] >= Math.max(smoothed[best], this.threshold) - MARGIN) return label
    return smoothed[best] >= this.threshold ? best : null
  }
}

/** A smoother for each person of a video; time must not go back. */
export class FaceSmoothers {
  constructor(classes, threshold, timeConstantMs) {
    this.create = () => new EmotionSmoother(classes, threshold, timeConstantMs)
    this.smoothers = new Map()
  }

  /** A person's smoother; a new one for somebody unseen for longer than `RESET_MS`. */
  ofPerson(person, timestampMs) {
    for (const [known, smoother] of this.smoothers) {
      if (timestampMs - smoother.timestampMs > RESET_MS) this.smoothers.delete(known)
    }
    if (!this.smoothers.has(person)) this.smoothers.set(person, this.create())
    return this.smoothers.get(person)
  }
}

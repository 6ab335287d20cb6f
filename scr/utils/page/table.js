// Readings -> CSV: app/results/table.py, a row for each face of a frame.
import { table } from './constants.js'

/** Rows kept; beyond, the older half goes, so that a day with the camera does not fill the memory. */
const MOST_ROWS = 200_000

export class Table {
  constructor(classes) {
    Object.assign(this, { classes, rows: [] })
  }

  add(source, frame, timestampMs, results) {
    if (this.rows.length > MOST_ROWS) this.rows.splice(0, MOST_ROWS / 2)
    const start = [readableName(source), frame, timestampMs ?? 0]
    for (const { face, box, emotion, confidence, probabilities } of results) {
      const figures = [confidence, ...probabilities].map((value) => value.toFixed(5))
      this.rows.push([...start, face, ...box, emotion, ...figures])
    }
    const empty = table.COLUMNS.length - start.length + this.classes.length
    if (results.length === 0) this.rows.push([...start, ...Array(empty).fill('')])
  }

  toCsv() {
    const line = (cells) => `${cells.map(quoted).join(',')}\n`
    const text = line([...table.COLUMNS, ...this.classes]) + this.rows.map(line).join('')
    return /[^\x00-\x7f]/.test(text) ? `\ufeff${text}` : text  // so that spreadsheets read it as UTF-8
  }
}

/** A name that no spreadsheet takes for a formula, on one line. */
function readableName(name) {
  return `${/^[=+\-@]/.test(name) ? './' : ''}${name}`.replaceAll('\r', '\\r')
}

function quoted(cell) {
  return /[",\r\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : cell
}

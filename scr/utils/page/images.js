// Pixels, scaled and moved to the last bit as OpenCV does it in faces/images.py, so that networks see the same.
// A picture is {data, width, height}: RGBA as a canvas gives it (ImageData), or grey, one byte a pixel.
import { images } from './constants.js'

const channelsOf = (picture) => picture.data.length / (picture.width * picture.height)
const blank = (width, height, channels) => ({ data: new Uint8Array(width * height * channels), width, height })

/** The pixels from left, top to right, bottom; of them every `step`th of every `step`th line. */
export function cut(picture, left, top, right, bottom, step = 1) {
  const channels = channelsOf(picture)
  const part = blank(Math.ceil((right - left) / step), Math.ceil((bottom - top) / step), channels)
  for (let y = top, to = 0; y < bottom; y += step) {
    const from = y * picture.width * channels
    if (step === 1) {
      part.data.set(picture.data.subarray(from + left * channels, from + right * channels), to)
      to += part.width * channels
      continue
    }
    for (let x = left; x < right; x += step) {
      for (let c = 0; c < channels; c++, to++) part.data[to] = picture.data[from + x * channels + c]
    }
  }
  return part
}

/** A picture scaled down without aliasing, never enlarged: halved as often as it goes, then bilinear. */
export function shrink(picture, scale) {
  if (scale >= 1) return picture
  const width = Math.max(1, Math.round(picture.width * scale))
  const height = Math.max(1, Math.round(picture.height * scale))
  for (; scale <= 0.5; scale *= 2) picture = halve(picture)
  return resizeLinear(picture, width, height)
}

/** A picture of half the size, by averaging. */
export function halve(picture) {
  const [width, height] = [picture.width >> 1, picture.height >> 1]
  if (picture.width % 2 || picture.height % 2) return resizeArea(picture, width, height)
  const channels = channelsOf(picture)
  const half = blank(width, height, channels)
  const [row, { data }] = [picture.width * channels, picture]
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = 2 * (y * row + x * channels)
      for (let c = from; c < from + channels; c++, at++) {
        half.data[at] = (data[c] + data[c + channels] + data[c + row] + data[c + row + channels] + 2) >> 2
      }
    }
  }
  return half
}

/** What each of `size` cells along an axis of `from` pixels covers: first pixel, and the share of each. */
function spans(from, size) {
  const scale = from / size
  return Array.from({ length: size }, (_, i) => {
    const [start, end] = [i * scale, Math.min((i + 1) * scale, from)]
    const first = Math.floor(start + 1e-6)
    const shares = []
    for (let at = first; at < end - 1e-6; at++) {
      shares.push(Math.fround((Math.min(at + 1, end) - Math.max(at, start)) / (end - start)))
    }
    return { first, shares }
  })
}

/** A picture scaled down to any size by averaging over areas (INTER_AREA). */
export function resizeArea(picture, width, height) {
  const channels = channelsOf(picture)
  const { data } = picture
  const small = blank(width, height, channels)
  const [columns, lines] = [spans(picture.width, width), spans(picture.height, height)]
  for (let y = 0, to = 0; y < height; y++) {
    const line = lines[y]
    for (let x = 0; x < width; x++) {
      const column = columns[x]
      for (let c = 0; c < channels; c++, to++) {
        let sum = 0.5
        for (let down = 0; down < line.shares.length; down++) {
          const from = ((line.first + down) * picture.width + column.first) * channels + c
          let across = 0
          for (let i = 0; i < column.shares.length; i++) across += data[from + i * channels] * column.shares[i]
          sum += across * line.shares[down]
        }
        small.data[to] = sum
      }
    }
  }
  return small
}

/** For each of `size` places along an axis of `from` pixels: the two pixels around it, and their weights. */
function places(from, size) {
  const table = { first: [], second: [], firstWeight: [], secondWeight: [] }
  for (let i = 0; i < size; i++) {
    const at = Math.fround((i + 0.5) * (from / size) - 0.5)
    const share = Math.fround(at - Math.floor(at))
    table.first.push(Math.max(Math.floor(at), 0))
    table.second.push(Math.min(Math.floor(at) + 1, from - 1))
    table.firstWeight.push(roundHalfToEven(Math.fround(1 - share) * 2048))
    table.secondWeight.push(roundHalfToEven(share * 2048))
  }
  return table
}

function roundHalfToEven(value) {
  const rounded = Math.round(value)
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded
}

/** A picture at any size, bilinearly, in OpenCV's fixed point of 11 bits (INTER_LINEAR). */
export function resizeLinear(picture, width, height) {
  const channels = channelsOf(picture)
  const { data } = picture
  const result = blank(width, height, channels)
  const [columns, lines] = [places(picture.width, width), places(picture.height, height)]
  for (let y = 0, at = 0; y < height; y++) {
    const [top, bottom] = [lines.first[y] * picture.width, lines.second[y] * picture.width]
    const [high, low] = [lines.firstWeight[y], lines.secondWeight[y]]
    for (let x = 0; x < width; x++) {
      const [left, right] = [columns.first[x], columns.second[x]]
      const [before, after] = [columns.firstWeight[x], columns.secondWeight[x]]
      for (let c = 0; c < channels; c++, at++) {
        const upper = data[(top + left) * channels + c] * before + data[(top + right) * channels + c] * after
        const lower = data[(bottom + left) * channels + c] * before + data[(bottom + right) * channels + c] * after
        result.data[at] = (((high * (upper >> 4)) >> 16) + ((low * (lower >> 4)) >> 16) + 2) >> 2
      }
    }
  }
  return result
}

/**
 * A square of `side` pixels sampled bilinearly from a picture. `inverse`, [a, b, c, d, e, f], tells where its
 * pixel (x, y) lies: (a x + b y + c, d x + e y + f). Beyond the picture is black, or its border goes on.
 */
export function warp(picture, inverse, side, borderGoesOn) {
  const channels = channelsOf(picture)
  const { data, width, height } = picture
  const result = blank(side, side, channels)
  const colours = Math.min(channels, 3)
  const [a, b, c, d, e, f] = inverse
  for (let row = 0, at = 0; row < side; row++) {
    for (let column = 0; column < side; column++, at += channels) {
      const x = a * column + b * row + c
      const y = d * column + e * row + f
      const left = Math.floor(x)
      const top = Math.floor(y)
      const right = x - left
      const down = y - top
      if (left >= 0 && top >= 0 && left < width - 1 && top < height - 1) {
        const from = (top * width + left) * channels
        const below = from + width * channels
        for (let i = 0; i < colours; i++) {
          const upper = data[from + i] * (1 - right) + data[from + channels + i] * right
          const lower = data[below + i] * (1 - right) + data[below + channels + i] * right
          result.data[at + i] = upper * (1 - down) + lower * down + 0.5
        }
      } else {
        for (let i = 0; i < colours; i++) {
          const pixel = (across, along) => pixelAt(picture, left + across, top + along, borderGoesOn, channels, i)
          const upper = pixel(0, 0) * (1 - right) + pixel(1, 0) * right
          const lower = pixel(0, 1) * (1 - right) + pixel(1, 1) * right
          result.data[at + i] = upper * (1 - down) + lower * down + 0.5
        }
      }
    }
  }
  return result
}

function pixelAt({ data, width, height }, x, y, borderGoesOn, channels, channel) {
  const [inX, inY] = [Math.min(Math.max(x, 0), width - 1), Math.min(Math.max(y, 0), height - 1)]
  return borderGoesOn || (inX === x && inY === y) ? data[(inY * width + inX) * channels + channel] : 0
}

/** The grey picture of an RGBA one. */
export function toGrey(picture) {
  const result = blank(picture.width, picture.height, 1)
  for (let i = 0, at = 0; i < result.data.length; i++, at += 4) {
    const { data } = picture
    result.data[i] = (data[at] * 9798 + data[at + 1] * 19235 + data[at + 2] * 3735 + 16384) >> 15
  }
  return result
}

/** A picture that is too dark for the networks as if in more light. */
export function brighten(picture) {
  const { data, width, height } = picture
  const small = resizeArea(cut(picture, 0, 0, width, height, Math.max(1, Math.min(width, height) >> 6)), 32, 32)
  const lightest = small.data.reduce((most, value, i) => (i % 4 < 3 ? Math.max(most, value) : most), 0)
  if (lightest === 0 || lightest >= images.DARK_LEVEL) return picture
  const scale = images.DARK_LEVEL / lightest
  const brighter = Uint8ClampedArray.from(data, (value, i) => (i % 4 < 3 ? value * scale : value))
  return { data: brighter, width, height }
}

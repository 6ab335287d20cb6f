// Camera, videos and pictures -> frames: RGBA pixels, upright. What goes wrong becomes a line in plain words.
import { images } from './constants.js'

/** A problem that the reader of the page can mend. */
export class SourceError extends Error {}

const CAMERA_PROBLEMS = {
  NotAllowedError: 'The camera was refused. Allow it at the sign in the address bar, then start again.',
  NotFoundError: 'No camera was found. Connect one, or open pictures or a video.',
  OverconstrainedError: 'That camera is gone. Choose another one.',
  NotReadableError: 'The camera is busy: close the other program that uses it, then start again.',
  AbortError: 'The camera is busy: close the other program that uses it, then start again.',
}

/** An opened camera or video: a playing <video>, and how to let go of it. */
class MovingSource {
  constructor(name, video, isCamera) {
    Object.assign(this, { name, video, isCamera })
  }

  get size() {
    return [this.video.videoWidth, this.video.videoHeight]
  }

  /** Whether it is the camera on the back of a phone. */
  get facesAway() {
    return this.video.srcObject?.getVideoTracks()[0]?.getSettings?.().facingMode === 'environment'
  }

  get timestampMs() {
    return Math.round(this.isCamera ? performance.now() : 1000 * this.video.currentTime)
  }

  /** Calls back when the next frame is there; never while the page is hidden. */
  onFrame(callback) {
    const { video } = this
    if (video.requestVideoFrameCallback && !video.paused) video.requestVideoFrameCallback(callback)
    else requestAnimationFrame(callback)
  }

  async setPaused(paused) {
    if (paused) this.video.pause()
    else await this.video.play()
  }

  close() {
    this.video.srcObject?.getTracks().forEach((track) => track.stop())
    if (this.video.src) URL.revokeObjectURL(this.video.src)
    this.video.removeAttribute('src')
    this.video.srcObject = null
  }
}

function newVideo() {
  return Object.assign(document.createElement('video'), { muted: true, playsInline: true })
}

/** The camera of that id (`''`: the browser's choice), playing; onLost is called when it is unplugged. */
export async function openCamera(deviceId, onLost) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new SourceError('Browsers give the camera to secure addresses only: https://, or localhost. '
      + 'Pictures and videos can be opened here all the same.')
  }
  const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: 'user' }
  const wanted = { width: { ideal: 640 }, height: { ideal: 480 }, ...which }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false })
    stream.getVideoTracks()[0].addEventListener('ended', onLost)
    const video = newVideo()
    video.srcObject = stream
    await video.play()
    return new MovingSource('camera', video, true)
  } catch (error) {
    throw new SourceError(CAMERA_PROBLEMS[error.name] ?? `The camera does not start (${error.message}).`)
  }
}

/** The cameras that there are: [{id, name}]; names are known once a camera was allowed. */
export async function listCameras() {
  const devices = await navigator.mediaDevices?.enumerateDevices?.() ?? []
  return devices.filter((device) => device.kind === 'videoinput' && device.deviceId)
    .map((device, i) => ({ id: device.deviceId, name: device.label || `camera ${i + 1}` }))
}

/** A picture (ImageBitmap) or a playing video of a file; by its type, else by trying. */
export async function openFile(file) {
  if (!file.type.startsWith('video/')) {
    const bitmap = await createImageBitmap(file).catch(() => null)
    if (bitmap) return bitmap
  }
  if (!file.type.startsWith('image/')) {
    const video = newVideo()
    video.src = URL.createObjectURL(file)
    const source = new MovingSource(file.name, video, false)
    try {
      await video.play()
      if (video.videoWidth) return source
    } catch { /* refused below, as a file without pictures */ }
    source.close()
  }
  throw new SourceError(`${file.name} can't be read here: it is damaged, or of a kind unknown to this browser.`)
}

/** Draws a source's picture on a canvas of its size, at most `MAX_READ_PIXELS`; gives its pixels. */
export function grabFrame(image, [width, height], canvas) {
  const scale = Math.min(1, Math.sqrt(images.MAX_READ_PIXELS / (width * height)))
  const size = { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) }
  if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size)
  const context = canvas.getContext('2d', { willReadFrequently: true })
  context.imageSmoothingQuality = 'high'
  context.drawImage(image, 0, 0, size.width, size.height)
  return context.getImageData(0, 0, size.width, size.height)
}

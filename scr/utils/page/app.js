// The page: a source's frames go through `FaceReader`, its readings to the view and the table.
import { FaceReader } from './pipeline.js'
import { SourceError, grabFrame, listCameras, openCamera, openFile } from './sources.js'
import { Table } from './table.js'
import { View } from './view.js'

const byId = (id) => document.getElementById(id)
const picture = byId('picture')
let reader, view, table
let source = null  // the camera or video that is playing
let files = []  // what was opened, and which of it is shown
let shownFile = 0
let paused = false
let run = 0  // counts sources: what belongs to an earlier one stops
let frameIndex = 0
const paces = []  // when the last frames were done

async function start() {
  connectDropping()
  try {
    reader = await FaceReader.open(new URLSearchParams(location.search).get('classes'))
  } catch (error) {
    byId('loading').textContent = ''
    return showMessage(`The page can't start: ${error.message}. Load it again, or use a newer browser.`)
  }
  const { classifier } = reader
  view = new View(classifier.classes, classifier.colours)
  table = new Table(classifier.classes)
  byId('model').textContent = `It tells apart: ${classifier.classes.join(', ')}`
  offerVocabularies(classifier)
  byId('personal').hidden = !classifier.personal
  byId('loading').textContent = ''
  for (const id of ['start', 'open']) byId(id).disabled = false
  connectControls()
  document.body.dataset.ready = 'true'
  keepForOffline()
}

/** Lets the user choose how many expressions are told apart; the page is loaded again with these. */
function offerVocabularies({ vocabularies, classes }) {
  byId('classes').parentElement.hidden = vocabularies.length < 2
  byId('classes').replaceChildren(...vocabularies.map((one) => {
    const names = one.classes.join()
    return new Option(one.classes.length, names, false, names === classes.join())
  }))
  byId('classes').addEventListener('change', (event) => {
    location.search = new URLSearchParams({ classes: event.target.value })
  })
}

/** Shows a line of text: a problem, or with `isNote` something good to know. */
function showMessage(text, isNote = false) {
  byId('message').textContent = text
  byId('message').className = isNote ? 'note' : ''
}

/** Tries an action; a problem becomes a line of text, and the page goes on. */
async function attempt(action) {
  try {
    await action()
  } catch (error) {
    showMessage(error instanceof SourceError ? error.message : `That failed: ${error.message}`)
  }
}

// Sources

/** Lets go of what was shown, and begins with something new; true while it is the newest. */
function begin(maxFaces) {
  const mine = ++run
  source?.close()
  source = null
  paused = false
  frameIndex = 0
  paces.length = 0
  reader.begin(maxFaces)
  view.clear()
  showMessage('')
  byId('intro').hidden = true
  update()
  return () => mine === run
}

const wantedFaces = () => Number(byId('faces').value)

async function startCamera() {
  files = []
  const isCurrent = begin(wantedFaces())
  const opened = await openCamera(byId('camera').value, () => isCurrent() && loseCamera()).catch((error) => {
    if (isCurrent()) stop()
    throw error
  })
  if (!isCurrent()) return opened.close()
  setMirror(!opened.facesAway)
  play(opened, isCurrent)
  await offerCameras()
}

function loseCamera() {
  stop()
  showMessage('The camera was disconnected. It goes on when it is back.')
  const mine = run
  navigator.mediaDevices.addEventListener('devicechange', () => {
    if (mine === run) attempt(startCamera)
  }, { once: true })
}

async function offerCameras() {
  const chosen = byId('camera').value
  const options = (await listCameras()).map(({ id, name }) => new Option(name, id, false, id === chosen))
  byId('camera').replaceChildren(new Option('default', ''), ...options)
  byId('camera').value = chosen
}

function openFiles(list) {
  if (!view) return showMessage('The page is still loading.', true)
  files = [...list]
  shownFile = 0
  if (files.length) attempt(showFile)
}

async function showFile() {
  const file = files[shownFile]
  const isCurrent = begin(wantedFaces())
  setMirror(false)
  showMessage('Reading ...', true)
  const opened = await openFile(file)
  if (!isCurrent()) return opened.close()
  const position = files.length > 1 ? ` (${shownFile + 1} of ${files.length})` : ''
  showMessage(`${file.name}${position}`, true)
  if (opened instanceof ImageBitmap) await showPicture(opened, file.name, isCurrent)
  else play(opened, isCurrent)
}

async function showPicture(bitmap, name, isCurrent) {
  const frame = grabFrame(bitmap, [bitmap.width, bitmap.height], picture)
  bitmap.close()
  const results = await reader.readPicture(frame)
  if (isCurrent()) show(name, frame, results, null)
}

function play(opened, isCurrent) {
  source = opened
  opened.video.addEventListener('ended', () => isCurrent() && setPaused(true))
  opened.video.addEventListener('error', () => isCurrent() && showMessage(`${opened.name} is damaged from here on.`))
  update()
  if (document.activeElement === document.body) byId('pause').focus()
  let size = ''
  let before = -1
  const step = async () => {
    if (!isCurrent()) return
    const timestampMs = opened.timestampMs
    if (!paused && opened.size[0] && timestampMs !== before) {
      // A phone was turned, or a video begins anew: what was known of faces holds no more.
      if (opened.size.join() !== size || timestampMs < before) reader.begin(wantedFaces())
      size = opened.size.join()
      before = timestampMs
      const frame = grabFrame(opened.video, opened.size, picture)
      const results = await reader.read(frame, timestampMs)
      if (!isCurrent()) return
      show(opened.name, frame, results, timestampMs)
    }
    opened.onFrame(() => attempt(step))
  }
  attempt(step)
}

function show(name, frame, results, timestampMs) {
  const overlay = byId('overlay')
  if (overlay.width !== frame.width || overlay.height !== frame.height) {
    Object.assign(overlay, { width: frame.width, height: frame.height })
  }
  paces.push(performance.now())
  if (paces.length > 20) paces.shift()
  const pace = (1000 * (paces.length - 1)) / (paces.at(-1) - paces[0])
  view.draw(results, timestampMs, timestampMs === null ? '' : `last 10 s, ${Math.round(pace) || 0} frames a second`)
  table.add(name, frameIndex++, timestampMs, results)
  document.body.dataset.frames = String(Number(document.body.dataset.frames ?? 0) + 1)
  update()
}

function stop() {
  files = []
  begin(wantedFaces())
  for (const id of ['picture', 'overlay']) Object.assign(byId(id), { width: 640, height: 480 })  // and empty
  byId('intro').hidden = false
  byId('start').focus()
}

// Controls

/** Sets what buttons say and whether they can be pressed. */
function update() {
  const shown = frameIndex > 0
  byId('stop').disabled = byId('intro').hidden === false
  byId('pause').disabled = source === null
  byId('pause').setAttribute('aria-pressed', String(paused))
  byId('next').hidden = files.length < 2
  byId('save').disabled = !shown
  byId('table').disabled = table.rows.length === 0
}

function setMirror(mirror) {
  view.mirror = mirror
  byId('mirror').setAttribute('aria-pressed', String(mirror))
  picture.classList.toggle('mirrored', mirror)
  view.drawOverlay()
}

function setPoints(showPoints) {
  view.showPoints = showPoints
  byId('points').setAttribute('aria-pressed', String(showPoints))
  view.drawOverlay()
}

function setPaused(wanted) {
  if (source === null) return
  paused = wanted
  attempt(() => source.setPaused(paused))
  update()
}

function showNext() {
  if (files.length < 2) return
  shownFile = (shownFile + 1) % files.length
  attempt(showFile)
}

function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen()
  else attempt(() => byId('main').requestFullscreen())
}

function download(blob, name) {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
}

function savePicture() {
  if (frameIndex > 0) view.compose(picture).toBlob((blob) => download(blob, 'face.png'), 'image/png')
}

function saveTable() {
  download(new Blob([table.toCsv()], { type: 'text/csv' }), 'emotions.csv')
}

function connectControls() {
  const actions = {
    start: () => attempt(startCamera),
    stop,
    pause: () => setPaused(!paused),
    next: showNext,
    open: () => byId('files').click(),
    mirror: () => setMirror(!view.mirror),
    points: () => setPoints(!view.showPoints),
    fullscreen: toggleFullscreen,
    save: savePicture,
    table: saveTable,
  }
  for (const [id, action] of Object.entries(actions)) byId(id).addEventListener('click', action)
  byId('fullscreen').hidden = !document.fullscreenEnabled
  byId('files').addEventListener('change', (event) => {
    openFiles(event.target.files)
    event.target.value = ''  // so that the same file can be opened again
  })
  byId('camera').addEventListener('change', () => { if (source?.isCamera) attempt(startCamera) })
  byId('faces').addEventListener('change', () => { if (source) reader.begin(wantedFaces()) })
  const keys = { ' ': 'pause', m: 'mirror', l: 'points', s: 'save', f: 'fullscreen' }
  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('button, select, input, a')
    if (event.ctrlKey || event.metaKey || event.altKey || (typing && event.key === ' ')) return
    const id = event.key === ' ' && source === null ? 'next' : keys[event.key.toLowerCase()]
    if (!id || event.target.closest?.('select')) return
    event.preventDefault()
    actions[id]()
  })
}

function connectDropping() {
  const mark = (event, over) => {
    event.preventDefault()
    byId('stage').classList.toggle('dropping', over)
  }
  document.addEventListener('dragover', (event) => mark(event, true))
  document.addEventListener('dragleave', (event) => mark(event, false))
  document.addEventListener('drop', (event) => {
    mark(event, false)
    openFiles(event.dataTransfer?.files ?? [])
  })
}

/** Lets the page be opened without a network from now on, where the browser can. */
function keepForOffline() {
  navigator.serviceWorker?.register('offline.js').catch(() => {})
}

start()

// A service worker: the page's files from the network, and from a copy where there is none.
const copy = () => caches.open(self.registration.scope)

async function keep(request, response) {
  await (await copy()).put(request, response).catch(() => {})  // where there is no room
}

self.addEventListener('install', (event) => {
  event.waitUntil((async () => {
    const files = await (await fetch('files.json', { cache: 'no-cache' })).json()
    await (await copy()).addAll(['./', 'files.json', ...Object.keys(files)])
  })())
})

self.addEventListener('fetch', (event) => {
  if (event.request.method !== 'GET' || new URL(event.request.url).origin !== self.location.origin) return
  event.respondWith((async () => {
    try {
      const response = await fetch(event.request)
      if (response.ok) event.waitUntil(keep(event.request, response.clone()))
      return response
    } catch (error) {
      const kept = await (await copy()).match(event.request, { ignoreSearch: true })
      if (kept) return kept
      throw error
    }
  })())
})

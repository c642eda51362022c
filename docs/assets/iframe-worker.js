// Search without a server: a page that opens from a folder may start no worker, so a hidden frame takes its place.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const inside = frame.contentWindow
      const load = src =>
        new Promise((onload, onerror) => {
          const script = inside.document.createElement("script")
          inside.document.body.append(Object.assign(script, { src, onload, onerror }))
        })
      inside.importScripts = (...urls) => urls.reduce((before, src) => before.then(() => load(src)), Promise.resolve())
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.loaded = load(url)
      this.postMessage = data => this.loaded.then(() => inside.dispatchEvent(new MessageEvent("message", { data })))
    }
  }

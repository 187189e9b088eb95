// Browsers start no worker for a page opened from disk. Run the search worker's script in a hidden frame there.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      this.scope = new Promise((resolve) => {
        const load = () => {
          const scope = frame.contentWindow
          scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
          const script = frame.contentDocument.createElement("script")
          script.src = url
          script.onload = () => resolve(scope)
          frame.contentDocument.body.appendChild(script)
        }
        frame.addEventListener("load", load, { once: true })
      })
      document.body.appendChild(frame)
    }
    postMessage(data) {
      this.scope.then((scope) => scope.dispatchEvent(new scope.MessageEvent("message", { data })))
    }
    terminate() {}
  }
}

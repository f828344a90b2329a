// The search of the site runs in a worker, which browsers refuse to a page that is opened from a disk. There, a hidden frame
// of the page takes its place: it has the same origin, runs the worker's script, and passes messages as events.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.place = frame.contentWindow;
      this.place.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.ready = new Promise((resolve, reject) => {
        const script = this.place.document.createElement("script");
        script.src = url;
        script.onload = resolve;
        script.onerror = reject;
        this.place.document.head.append(script);
      });
    }

    async postMessage(data) {
      await this.ready;
      this.place.dispatchEvent(new this.place.MessageEvent("message", { data }));
    }
  };
}

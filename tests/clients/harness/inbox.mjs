/** What a client received, and a way to wait for it. */
export class Inbox {
  events = []
  #opened = withResolvers()
  #waiting = []

  /** The client has a stream. */
  opened = () => this.#opened.resolve()

  /** The client received an event: `{ id, type, data }`. */
  received = (event) => {
    this.events.push(event)
    this.#waiting = this.#waiting.filter(({ done, resolve }) => !done(this.events) || resolve())
  }

  /** Waits until the client has had a stream. */
  open() {
    return this.#opened.promise
  }

  /** Waits until what was received makes `done` true. */
  until(done) {
    if (done(this.events)) return Promise.resolve()
    const { promise, resolve } = withResolvers()
    this.#waiting.push({ done, resolve })
    return promise
  }

  /** Waits until an event with this payload is the last. */
  untilLast(data) {
    return this.until((events) => events.at(-1)?.data === data)
  }
}

function withResolvers() {
  const deferred = {}
  deferred.promise = new Promise((resolve, reject) => Object.assign(deferred, { resolve, reject }))
  return deferred
}

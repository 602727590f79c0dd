// npm's clients. Each has `open(url, types, inbox)`, which opens a stream, tells the inbox what comes and returns how to close it; and where a
// client is known to differ, how: `reads(text)` is what it makes of a payload; one with `forgetsRetry` reads a `retry:` with the event after it,
// and so not at all at the end of a stream.
import { fetchEventSource } from '@microsoft/fetch-event-source'
import { EventSource as NpmEventSource } from 'eventsource'
import { createEventSource } from 'eventsource-client'
import launchDarkly from 'launchdarkly-eventsource'
import { EventSource as UndiciEventSource } from 'undici'

import { listen, listenByFetch, readsByFetch } from './harness/listen.mjs'

export const clients = {
  eventsource: {
    open: (url, types, inbox) => listen(new NpmEventSource(url), types, inbox),
  },

  undici: {
    forgetsRetry: true,
    open: (url, types, inbox) => listen(new UndiciEventSource(url), types, inbox),
  },

  'eventsource-client': {
    open: (url, _types, inbox) => {
      const source = createEventSource({
        url,
        onConnect: inbox.opened,
        onMessage: ({ id, event = 'message', data }) => inbox.received({ id, type: event, data }),
      })
      return () => source.close()
    },
  },

  // An error that nobody listens for ends the process. Without a time of its own, the five seconds of Node's agent would end every quiet stream.
  'launchdarkly-eventsource': {
    open: (url, types, inbox) => {
      const source = new launchDarkly.EventSource(url, { readTimeoutMillis: 60_000 })
      source.addEventListener('error', () => {})
      return listen(source, types, inbox)
    },
  },

  // Made for pages: what it takes for granted of one is given to it.
  '@microsoft/fetch-event-source': {
    open: (url, _types, inbox) => {
      globalThis.window ??= globalThis
      globalThis.document ??= new EventTarget()
      return listenByFetch(fetchEventSource, url, inbox)
    },
    reads: readsByFetch,
  },
}

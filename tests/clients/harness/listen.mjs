/** Has an inbox hear an EventSource, a browser's or one that has its interface. */
export function listen(source, types, inbox) {
  source.addEventListener('open', inbox.opened)
  for (const type of ['message', ...types]) {
    source.addEventListener(type, ({ lastEventId, data }) => inbox.received({ id: lastEventId, type, data }))
  }
  return () => source.close()
}

/**
 * Has an inbox hear what `fetchEventSource` of `@microsoft/fetch-event-source` reads, which takes the end of a stream for the end of all, unless
 * told otherwise.
 */
export function listenByFetch(fetchEventSource, url, inbox) {
  const end = new AbortController()
  fetchEventSource(url, {
    signal: end.signal,
    openWhenHidden: true,
    onopen: async (response) => response.ok && inbox.opened(),
    onmessage: ({ id, event, data }) => inbox.received({ id, type: event || 'message', data }),
    onclose: () => {
      throw new Error('to be opened again')
    },
  })
  return () => end.abort()
}

/**
 * What it makes of a payload: it decodes each line as if it were a text of its own, which drops a BOM, and cannot tell an empty first line from
 * none.
 */
export const readsByFetch = (text) => text.replace(/(^|\n)\ufeff/g, '$1').replace(/^\n+/, '')

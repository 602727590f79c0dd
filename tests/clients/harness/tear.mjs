// A way to a server that breaks in the middle of an event, once.
import { once } from 'node:events'
import { connect, createServer } from 'node:net'

/** Stands before a server: the first connection over which this text is to come is cut off in the middle of it. */
export async function tear(test, url, text) {
  const { hostname, port } = new URL(url)
  let isTorn = false
  const sockets = new Set()
  const before = createServer((client) => {
    const server = connect(port, hostname)
    let carried = ''
    server.on('data', (bytes) => {
      carried += bytes.toString('latin1')
      const at = isTorn ? -1 : carried.indexOf(text)
      if (at < 0) return client.write(bytes)
      isTorn = true
      const over = carried.length - at - (text.length >> 1)
      client.end(bytes.subarray(0, Math.max(0, bytes.length - over)))
      server.destroy()
    })
    client.on('data', (bytes) => server.write(bytes))
    for (const [one, other] of [[client, server], [server, client]]) {
      sockets.add(one)
      one.on('error', () => {})
      one.on('close', () => other.destroy())
    }
  })
  test.after(() => {
    sockets.forEach((socket) => socket.destroy())
    before.close()
  })
  before.listen(0, hostname)
  await once(before, 'listening')
  const through = new URL(url)
  through.port = before.address().port
  return { url: through.href, isTorn: () => isTorn }
}

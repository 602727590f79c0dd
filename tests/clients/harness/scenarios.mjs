// What every client must get right. A client has `open(url, types, inbox)`, which opens a stream, tells the inbox what comes and returns how
// to close it; and may have `reads(text)`, what it makes of a payload.
import assert from 'node:assert/strict'

import { Inbox } from './inbox.mjs'
import { assertReceived, payloads, types } from './payloads.mjs'
import { Server } from './server.mjs'
import { tear } from './tear.mjs'

const TOPIC = 'clients/test:1'

/** Long enough for the largest payload, soon back after a restart, and soon gone. */
export const SETTINGS = {
  LIMITS__DATA_BYTES: '1MiB',
  HTTP__RETRY: '100ms',
  DRAIN__WINDOW: '500ms',
  TELEMETRY__LOG: 'info,tidings::edge=debug',
}

/** Reads every payload: those published before from the log, and again as they come. */
export async function readsHardPayloads(test, client, settings = SETTINGS) {
  const server = await Server.start(test, settings)
  const events = payloads.map(({ type, data }) => ({ topics: [TOPIC], type, data }))
  await server.publish(events)

  const replayed = follow(test, client, server.events(TOPIC, { since: 'earliest' }))
  await replayed.until((received) => received.length >= payloads.length)
  const live = follow(test, client, server.events(TOPIC))
  await live.open()
  await server.publish(events)
  await server.publish([{ topics: [TOPIC], data: 'the end' }])

  const end = { name: 'the end', data: 'the end' }
  await Promise.all([replayed.untilLast('the end'), live.untilLast('the end')])
  assertReceived(replayed.events, [...payloads, ...payloads, end], client.reads)
  assertReceived(live.events, [...payloads, end], client.reads)
}

/** The ways a server goes, in the order in which it does. */
export const ENDS = ['SIGKILL', 'SIGTERM', 'SIGKILL']

/** Follows by itself through restarts in the middle of publishing, and misses and repeats nothing. */
export async function survivesRestarts(test, client, settings = SETTINGS) {
  const server = await Server.start(test, settings)
  const inbox = follow(test, client, server.events(TOPIC, { since: 'earliest' }))
  await restarts(server, inbox)
}

/** Restarts a server whose events the inbox receives, and checks what it received in the end. */
export async function restarts(server, inbox) {
  const sent = []
  for (const [round, signal] of ENDS.entries()) {
    const batch = Array.from({ length: 300 }, (_, index) => keyed(`${round}-${index}`))
    const before = sent.length
    sent.push(...batch)
    // Cut off in the middle, as a rule: what became of the rest is unknown to the publisher, who asks again with the same keys.
    const cut = server.publish(batch).catch((error) => error)
    await inbox.until((received) => received.length > before)
    await server.end(signal)
    await cut
    await server.start()
    await server.publish(batch)
  }
  sent.push(keyed('the end'))
  await server.publish(sent.slice(-1))
  await inbox.untilLast('the end')
  assert.deepEqual(
    inbox.events.map(({ type, data }) => ({ type, data })),
    sent.map(({ type, data }) => ({ type, data })),
  )
  assert.equal(new Set(inbox.events.map(({ id }) => id)).size, sent.length, 'an id was given twice')
}

/** Loses its connection in the middle of an event, and neither misses nor repeats it. */
export async function survivesATear(test, client, settings = SETTINGS) {
  const server = await Server.start(test, settings)
  const torn = 'torn '.repeat(200)
  const way = await tear(test, server.events(TOPIC, { since: 'earliest' }), torn)
  const inbox = follow(test, client, way.url)
  await inbox.open()
  await server.publish(['before', torn, 'after'].map((data) => ({ topics: [TOPIC], type: types[0], data })))
  await inbox.untilLast('after')
  assert.ok(way.isTorn())
  assert.deepEqual(inbox.events.map(({ data }) => data), ['before', torn, 'after'])
}

// A client that went by this would not be back within a test: whoever is, went by what it was told last.
const NEVER = '1h'

/** Comes back after a drain when it was told to. */
export async function heedsADrain(test, client, settings = SETTINGS) {
  const server = await Server.start(test, { ...settings, HTTP__RETRY: NEVER })
  const inbox = follow(test, client, server.events(TOPIC))
  await inbox.open()
  await server.publish([keyed('before')])
  await inbox.untilLast('before')
  await server.end('SIGTERM')
  await server.start()
  await server.publish([keyed('after')])
  await inbox.untilLast('after')
  assert.deepEqual(inbox.events.map(({ data }) => data), ['before', 'after'])
}

/** Comes back to a server without room, again and again, until there is some. */
export async function waitsForRoom(test, client, settings = SETTINGS) {
  const server = await Server.start(test, { ...settings, HTTP__RETRY: NEVER, LIMITS__CONNECTIONS: '1' })
  const only = new AbortController()
  const answer = await fetch(server.events(TOPIC), { signal: only.signal })
  assert.equal(answer.status, 200)
  const inbox = follow(test, client, server.events(TOPIC, { since: 'earliest' }))
  await server.log.until((lines) => lines.filter(({ message }) => message === 'a stream is shed').length >= 2)
  assert.deepEqual(inbox.events, [])
  only.abort()
  await server.publish([keyed('there is room')])
  await inbox.untilLast('there is room')
  assert.equal(inbox.events.length, 1)
}

function keyed(data) {
  return { topics: [TOPIC], type: types[0], data, key: data.replaceAll(' ', '-') }
}

function follow(test, client, url) {
  const inbox = new Inbox()
  const close = client.open(url, types, inbox)
  test.after(async () => (await close)())
  return inbox
}

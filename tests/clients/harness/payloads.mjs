// The payloads that every client must read as they were published.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'

const entries = JSON.parse(readFileSync(new URL('../payloads.json', import.meta.url), 'utf8'))

/** Each with `name`, `data` and, if it has one, `type`. */
export const payloads = entries.map(({ times = 1, data, ...rest }) => ({ ...rest, data: data.repeat(times) }))

/** The types among them: an EventSource hears only those that it was asked to. */
export const types = [...new Set(payloads.flatMap(({ type }) => type ?? []))]

/** What is left of a text on its way through an event stream, whoever serves it: all line ends become LF. */
export const normalised = (text) => text.replace(/\r\n?/g, '\n')

/**
 * Demands that these payloads, and nothing else, were received, in order, each with an id that no other has. `reads` is what a client makes
 * of a text.
 */
export function assertReceived(received, sent, reads = (text) => text) {
  const ids = new Set()
  sent.forEach(({ name, type = 'message', data }, index) => {
    const got = received[index]
    assert.ok(got, `${name}: nothing was received`)
    assert.equal(got.type, type, `${name}: its type`)
    assert.match(got.id, /^[A-Za-z0-9._~-]{1,128}$/, `${name}: its id`)
    assert.ok(!ids.has(got.id), `${name}: its id is another's`)
    ids.add(got.id)
    assertSame(got.data, reads(normalised(data)), name)
  })
  assert.deepEqual(received.slice(sent.length), [], 'more was received than was sent')
}

// A difference in a megabyte is told by its place.
function assertSame(got, want, name) {
  if (got === want) return
  let at = 0
  while (at < want.length && got[at] === want[at]) at += 1
  const excerpt = (text) => JSON.stringify(text.slice(Math.max(0, at - 20), at + 20))
  assert.fail(`${name}: differs at ${at} of ${want.length} (${got.length} received): ${excerpt(got)}, not ${excerpt(want)}`)
}

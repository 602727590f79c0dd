// Pages of other origins: those that are configured read streams, with credentials; no others do.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { Inbox } from '../clients/harness/inbox.mjs'
import { SETTINGS } from '../clients/harness/scenarios.mjs'
import { Server } from '../clients/harness/server.mjs'
import { Page, launch, serve } from './browser.mjs'

const TOPIC = 'browser/origins'
const CLOSED = 2

describe('origins', { timeout: 240_000 }, () => {
  let browser
  before(async () => {
    browser = await launch()
  })
  after(() => browser.close())

  for (const withCredentials of [true, false]) {
    test(`a configured origin follows, withCredentials: ${withCredentials}`, async (t) => {
      const origin = await serve(t)
      const server = await Server.start(t, { ...SETTINGS, HTTP__CORS_ORIGINS: `["https://app.example", "${origin}"]` })
      const page = await Page.open(t, browser, origin)
      const { inbox } = page.follow(server.events(TOPIC), [], { withCredentials })
      await inbox.open()
      await server.publish([{ topics: [TOPIC], data: 'hello' }])
      await inbox.untilLast('hello')
    })

    test(`an origin that is not configured is told nothing, withCredentials: ${withCredentials}`, async (t) => {
      const [listed, other] = [await serve(t), await serve(t)]
      const server = await Server.start(t, { ...SETTINGS, HTTP__CORS_ORIGINS: `["${listed}"]` })
      await server.publish([{ topics: [TOPIC], data: 'secret' }])
      const page = await Page.open(t, browser, other)
      const stream = page.follow(server.events(TOPIC, { since: 'earliest' }), [], { withCredentials })
      const isOpen = stream.inbox.open().then(() => assert.fail('it was let in'))
      await Promise.race([stream.failures.until((failures) => failures.length > 0), isOpen])
      assert.deepEqual(stream.failures.events, [CLOSED], 'it is refused for good')
      assert.deepEqual(stream.inbox.events, [])
    })
  }

  test('a cross-origin reconnect resumes over HTTP/1.1 and needs no preflight', async (t) => {
    const origin = await serve(t)
    const server = await Server.start(t, { ...SETTINGS, HTTP__CORS_ORIGINS: `["${origin}"]` })
    const page = await Page.open(t, browser, origin)
    const stream = server.events(TOPIC)
    const [requests, responses] = [new Inbox(), new Inbox()]
    // A page also asks for its icon, when it pleases.
    await page.observe({
      'Network.requestWillBeSent': ({ request, type }) => request.url === stream && requests.received({ method: request.method, type }),
      'Network.responseReceived': ({ response }) => response.url === stream && responses.received(response.protocol),
    })
    const { inbox } = page.follow(stream, [], { withCredentials: true })
    await inbox.open()
    await server.publish([{ topics: [TOPIC], data: 'one' }])
    await inbox.untilLast('one')
    await server.end('SIGKILL')
    await server.start()
    await server.publish([{ topics: [TOPIC], data: 'two' }])
    await inbox.untilLast('two')
    assert.deepEqual(inbox.events.map(({ data }) => data), ['one', 'two'])
    // Chromium's account of its requests comes on another way than what they brought.
    await responses.until((protocols) => protocols.length >= 2)
    for (const request of requests.events) assert.deepEqual(request, { method: 'GET', type: 'EventSource' })
    for (const protocol of responses.events) assert.equal(protocol, 'http/1.1')
  })
})

// How many streams a browser has.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { SETTINGS } from '../clients/harness/scenarios.mjs'
import { Server } from '../clients/harness/server.mjs'
import { Page, launch, serve } from './browser.mjs'

const TOPIC = 'browser/connections'
const CONNECTING = 0
// What Chromium opens to one host over HTTP/1.1, over all tabs. More streams than that need HTTP/2.
const STREAMS_PER_HOST = 6

describe('connections', { timeout: 240_000 }, () => {
  let browser
  before(async () => {
    browser = await launch()
  })
  after(() => browser.close())

  test('a page has six streams of one host at once, and the seventh waits', async (t) => {
    const origin = await serve(t)
    const server = await Server.start(t, { ...SETTINGS, HTTP__CORS_ORIGINS: `["${origin}"]` })
    const page = await Page.open(t, browser, origin)
    const streams = Array.from({ length: STREAMS_PER_HOST }, () => page.follow(server.events(TOPIC)))
    await Promise.all(streams.map(({ inbox }) => inbox.open()))
    const seventh = page.follow(server.events(TOPIC))
    await seventh.asked
    await server.publish([{ topics: [TOPIC], data: 'for six' }])
    await Promise.all(streams.map(({ inbox }) => inbox.untilLast('for six')))
    assert.equal(await seventh.readyState(), CONNECTING)
    await streams[0].close()
    await seventh.inbox.open()
    await server.publish([{ topics: [TOPIC], data: 'for the seventh' }])
    await seventh.inbox.untilLast('for the seventh')
    assert.deepEqual(seventh.inbox.events.map(({ data }) => data), ['for the seventh'])
  })
})

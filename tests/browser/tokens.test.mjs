// Who a page is: by a cookie or by its address, until its token ends, and with the next one.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { after, before, describe, test } from 'node:test'

import { SETTINGS } from '../clients/harness/scenarios.mjs'
import { Server, address } from '../clients/harness/server.mjs'
import { Page, launch, serve } from './browser.mjs'

const INBOX = 'user:42'
const EXPIRING = 'tidings.token_expiring'
const SECRET = 'no more than a secret of these tests'
const [CONNECTING, CLOSED] = [0, 2]

/** A token, as the program makes it. */
function token(...claims) {
  const env = { ...process.env, TIDINGS_TOKEN_SECRET: SECRET }
  return execFileSync(process.env.TIDINGS, ['token', 'mint', '--audience', 'tests', ...claims], { env, encoding: 'utf8' }).trim()
}

describe('tokens', { timeout: 240_000 }, () => {
  let browser
  before(async () => {
    browser = await launch()
  })
  after(() => browser.close())

  /** A server that asks, and a page of another origin of the same site, as `app.example` is to `news.example`: browsers keep cookies from others. */
  async function begin(t) {
    const host = address()
    const origin = await serve(t, host)
    const settings = {
      ...SETTINGS,
      HTTP__CORS_ORIGINS: `["${origin}"]`,
      AUTH__ISSUERS: JSON.stringify([{ audience: ['tests'], secret: SECRET }]),
      AUTH__EXPIRY_NOTICE: '3s',
    }
    const server = await Server.start(t, settings, host)
    server.token = token('--sub', 'shop', '--publish', 'user:*')
    const page = await Page.open(t, browser, origin)
    const publish = (data) => server.publish([{ topics: [INBOX], data }])
    return { server, page, publish }
  }

  test('a page whose cookie is renewed in time goes on, exactly', async (t) => {
    const { server, page, publish } = await begin(t)
    const url = server.events(INBOX)
    await page.setCookie(url, 'tidings_token', token('--sub', '42', '--ttl', '8s'))
    const { inbox, failures } = page.follow(url, [EXPIRING], { withCredentials: true })
    await inbox.open()
    await publish('one')
    await inbox.until((events) => events.some(({ type }) => type === EXPIRING))
    await page.setCookie(url, 'tidings_token', token('--sub', '42'))
    await failures.until((failures) => failures.length > 0)
    await publish('two')
    await inbox.untilLast('two')
    await publish('three')
    await inbox.untilLast('three')
    const [notice, ...others] = inbox.events.filter(({ type }) => type === EXPIRING)
    assert.deepEqual(others, [], 'it was told once')
    assert.ok(JSON.parse(notice.data).expires_in_ms <= 3_000, notice.data)
    assert.equal(notice.id, inbox.events.find(({ data }) => data === 'one').id, 'the notice has no id of its own')
    const events = inbox.events.filter(({ type }) => type === 'message').map(({ data }) => data)
    assert.deepEqual(events, ['one', 'two', 'three'])
    assert.deepEqual(new Set(failures.events), new Set([CONNECTING]))
  })

  test('a page whose cookie is not renewed is refused for good', async (t) => {
    const { server, page } = await begin(t)
    const url = server.events(INBOX)
    await page.setCookie(url, 'tidings_token', token('--sub', '42'))
    const { inbox, failures } = page.follow(url, [], { withCredentials: true })
    await inbox.open()
    await server.revoke({ user: '42', token: token('--sub', 'ops', '--control') })
    await failures.until((failures) => failures.at(-1) === CLOSED)
  })

  test('without a cookie a page is nobody, and so it is without asking for cookies to be sent', async (t) => {
    const { server, page } = await begin(t)
    const url = server.events(INBOX)
    const nobody = page.follow(url, [], { withCredentials: true })
    await nobody.failures.until((failures) => failures.length > 0)
    assert.deepEqual(nobody.failures.events, [CLOSED])
    await page.setCookie(url, 'tidings_token', token('--sub', '42'))
    const unasked = page.follow(url)
    await unasked.failures.until((failures) => failures.length > 0)
    assert.deepEqual(unasked.failures.events, [CLOSED])
  })

  test('a page with its token in the address goes on with another', async (t) => {
    const { server, page, publish } = await begin(t)
    const first = page.follow(server.events(INBOX, { token: token('--sub', '42', '--ttl', '5s') }), [EXPIRING])
    await first.inbox.open()
    await publish('one')
    await first.inbox.untilLast('one')
    await first.inbox.until((events) => events.some(({ type }) => type === EXPIRING))
    await first.close()
    await publish('two')
    const last = first.inbox.events.find(({ data }) => data === 'one').id
    const second = page.follow(server.events(INBOX, { token: token('--sub', '42'), last_event_id: last }))
    await second.inbox.untilLast('two')
    assert.deepEqual(second.inbox.events.map(({ data }) => data), ['two'])
  })
})

// More streams than six, over HTTP/2, for which browsers want TLS.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { X509Certificate, createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { Inbox } from '../clients/harness/inbox.mjs'
import { SETTINGS } from '../clients/harness/scenarios.mjs'
import { Server } from '../clients/harness/server.mjs'
import { Page, launch, serve } from './browser.mjs'

const TOPIC = 'browser/tls'
const STREAMS = 50

describe('TLS', { timeout: 240_000 }, () => {
  const dir = mkdtempSync(join(tmpdir(), 'tidings-browser-'))
  const [cert, key] = ['tls.crt', 'tls.key'].map((name) => join(dir, name))
  let browser
  before(async () => {
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    execFileSync('openssl', ['req', '-x509', ...kind, '-keyout', key, '-out', cert, '-days', '10', '-subj', '/CN=tests'], { stdio: 'pipe' })
    const spki = new X509Certificate(readFileSync(cert)).publicKey.export({ type: 'spki', format: 'der' })
    // This key and no other is taken for that of a certificate that is good.
    browser = await launch([`--ignore-certificate-errors-spki-list=${createHash('sha256').update(spki).digest('base64')}`])
  })
  after(async () => {
    await browser?.close()
    rmSync(dir, { recursive: true, force: true })
  })

  test('a page has fifty streams on one connection, and they come back after a restart', async (t) => {
    const origin = await serve(t)
    const tls = { HTTP__TLS_CERT: cert, HTTP__TLS_KEY: key }
    const server = await Server.start(t, { ...SETTINGS, ...tls, HTTP__CORS_ORIGINS: `["${origin}"]` })
    const page = await Page.open(t, browser, origin)
    const stream = server.events(TOPIC)
    const responses = new Inbox()
    // A page also asks for its icon, when it pleases.
    await page.observe({ 'Network.responseReceived': ({ response }) => response.url === stream && responses.received(response) })

    // Until it knows that the server speaks HTTP/2, it may try several connections at once.
    const first = page.follow(stream)
    await first.inbox.open()
    const streams = [first, ...Array.from({ length: STREAMS - 1 }, () => page.follow(stream))]
    await Promise.all(streams.map(({ inbox }) => inbox.open()))
    await responses.until((all) => all.length >= STREAMS)
    assert.deepEqual(new Set(responses.events.map(({ protocol }) => protocol)), new Set(['h2']))
    assert.equal(new Set(responses.events.map(({ connectionId }) => connectionId)).size, 1)
    await server.publish([{ topics: [TOPIC], data: 'for all' }])
    await Promise.all(streams.map(({ inbox }) => inbox.untilLast('for all')))

    await server.end('SIGTERM')
    await server.start()
    await server.publish([{ topics: [TOPIC], data: 'after the restart' }])
    await Promise.all(streams.map(({ inbox }) => inbox.untilLast('after the restart')))
    for (const { inbox } of streams) {
      assert.deepEqual(inbox.events.map(({ data }) => data), ['for all', 'after the restart'])
    }
  })
})

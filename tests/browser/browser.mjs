// Chromium, and the pages in it.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'

import { chromium } from 'playwright-core'

import { Inbox } from '../clients/harness/inbox.mjs'
import { readsByFetch } from '../clients/harness/listen.mjs'

const FETCH = 'node_modules/@microsoft/fetch-event-source/lib/esm'
// Its modules name each other without an ending.
const FILES = {
  '/': ['text/html; charset=utf-8', 'page.html'],
  '/listen.mjs': ['text/javascript', '../clients/harness/listen.mjs'],
  '/fetch-event-source/index.js': ['text/javascript', `${FETCH}/index.js`],
  '/fetch-event-source/fetch': ['text/javascript', `${FETCH}/fetch.js`],
  '/fetch-event-source/parse': ['text/javascript', `${FETCH}/parse.js`],
}

// What it would otherwise ask the network for by itself.
const QUIET = [
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-gpu',
  '--disable-quic',
  '--disable-sync',
  '--no-first-run',
  '--no-proxy-server',
]

/** Starts Chromium for the time of a suite, with more arguments. */
export async function launch(more = []) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // Its sandbox does not start for root.
    chromiumSandbox: process.getuid() !== 0,
    args: [...QUIET, ...more],
  })
}

/** Serves the page for the time of a test; returns its origin. */
export async function serve(test, host = '127.0.0.1') {
  const server = createServer((request, response) => {
    const [type, file] = FILES[request.url] ?? []
    response.writeHead(file ? 200 : 404, { 'content-type': type ?? 'text/plain' })
    response.end(file && readFileSync(new URL(file, import.meta.url)))
  })
  server.listen(0, host)
  await once(server, 'listening')
  test.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://${host}:${server.address().port}`
}

/** A page of an origin, in a context of its own, that follows streams. */
export class Page {
  #page
  #inboxes = []

  static async open(test, browser, origin) {
    const context = await browser.newContext()
    test.after(() => context.close())
    const page = new Page()
    page.#page = await context.newPage()
    await page.#page.exposeFunction('told', page.#told)
    await page.#page.goto(origin)
    return page
  }

  /** Opens a stream by EventSource. `failures` are the ready states that its errors left it in; `asked` is when the page was asked to. */
  follow(url, types = [], init = {}, inbox = new Inbox()) {
    const failures = new Inbox()
    const number = this.#inboxes.push({ inbox, failures }) - 1
    const asked = this.#page.evaluate((given) => window.follow(...given), [number, url, types, init])
    return {
      inbox,
      failures,
      asked,
      readyState: () => this.#page.evaluate((number) => window.readyState(number), number),
      close: () => this.#page.evaluate((number) => window.closeSource(number), number),
    }
  }

  /** Opens a stream by fetch. */
  followByFetch(url, inbox) {
    const number = this.#inboxes.push({ inbox }) - 1
    return this.#page.evaluate(([number, url]) => void window.followByFetch(number, url), [number, url])
  }

  /** Has Chromium's own account of a page's requests told to `listener`, by the name of its event. */
  async observe(events) {
    const session = await this.#page.context().newCDPSession(this.#page)
    await session.send('Network.enable')
    for (const [name, listener] of Object.entries(events)) session.on(name, listener)
  }

  /** Gives the page's browser a cookie of the site that a URL is of. */
  setCookie(url, name, value) {
    const { origin } = new URL(url)
    return this.#page.context().addCookies([{ url: origin, name, value, httpOnly: true, sameSite: 'Strict' }])
  }

  screenshot(path) {
    return this.#page.screenshot({ path })
  }

  #told = ({ number, opened, event, failed }) => {
    const { inbox, failures } = this.#inboxes[number]
    if (opened) inbox.opened()
    if (event) inbox.received(event)
    if (failed !== undefined) failures.received(failed)
  }
}

/** What a page offers to follow with, as clients for the scenarios of all clients. A stream ends with its page. */
export const clients = {
  EventSource: (page) => ({
    open: (url, types, inbox) => {
      page.follow(url, types, {}, inbox)
      return () => {}
    },
  }),

  'fetch-event-source': (page) => ({
    open: (url, _types, inbox) => {
      page.followByFetch(url, inbox)
      return () => {}
    },
    reads: readsByFetch,
  }),
}

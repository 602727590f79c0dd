// What every client must get right, in a browser; the page is of another origin.
import { after, before, describe, test } from 'node:test'

import { SETTINGS, heedsADrain, readsHardPayloads, survivesATear, survivesRestarts, waitsForRoom } from '../clients/harness/scenarios.mjs'
import { Page, clients, launch, serve } from './browser.mjs'

const scenarios = {
  'reads every hard payload as it was published': readsHardPayloads,
  'goes on through restarts of the server without loss or repetition': survivesRestarts,
  'goes on through a connection that breaks in the middle of an event': survivesATear,
  'comes back after a drain when it was told to': heedsADrain,
  'comes back to a server without room until there is some': waitsForRoom,
}

let browser
before(async () => {
  browser = await launch()
})
after(() => browser.close())

for (const [client, follow] of Object.entries(clients)) {
  describe(`${client} in Chromium`, { concurrency: true, timeout: 240_000 }, () => {
    for (const [name, scenario] of Object.entries(scenarios)) {
      test(name, async (t) => {
        const origin = await serve(t)
        const page = await Page.open(t, browser, origin)
        await scenario(t, follow(page), { ...SETTINGS, HTTP__CORS_ORIGINS: `["${origin}"]` })
      })
    }
  })
}

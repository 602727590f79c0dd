import { describe, test } from 'node:test'

import { clients } from './clients.mjs'
import { heedsADrain, waitsForRoom } from './harness/scenarios.mjs'

describe('comes back after a drain when it was told to', { concurrency: true }, () => {
  for (const [name, client] of Object.entries(clients)) {
    if (client.forgetsRetry) continue
    test(name, { timeout: 240_000 }, (t) => heedsADrain(t, client))
  }
})

describe('comes back to a server without room until there is some', { concurrency: true }, () => {
  for (const [name, client] of Object.entries(clients)) {
    test(name, { timeout: 240_000 }, (t) => waitsForRoom(t, client))
  }
})

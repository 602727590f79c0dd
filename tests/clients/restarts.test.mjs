import { describe, test } from 'node:test'

import { clients } from './clients.mjs'
import { survivesATear, survivesRestarts } from './harness/scenarios.mjs'

describe('goes on through restarts of the server without loss or repetition', { concurrency: true }, () => {
  for (const [name, client] of Object.entries(clients)) {
    test(name, { timeout: 120_000 }, (t) => survivesRestarts(t, client))
  }
})

describe('goes on through a connection that breaks in the middle of an event', { concurrency: true }, () => {
  for (const [name, client] of Object.entries(clients)) {
    test(name, { timeout: 120_000 }, (t) => survivesATear(t, client))
  }
})

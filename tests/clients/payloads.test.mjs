import { describe, test } from 'node:test'

import { clients } from './clients.mjs'
import { readsHardPayloads } from './harness/scenarios.mjs'

describe('reads every hard payload as it was published', { concurrency: 2 }, () => {
  for (const [name, client] of Object.entries(clients)) {
    test(name, { timeout: 120_000 }, (t) => readsHardPayloads(t, client))
  }
})

// The page that a load test leaves behind, as one opens it: from a file.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { pathToFileURL } from 'node:url'

import { launch } from './browser.mjs'

// It is built beside the program.
const LOADTEST = join(dirname(process.env.TIDINGS), 'tidings-loadtest')

const points = Array.from({ length: 100 }, (_, place) => [place / 10, 1 + place])
const plot = (title, more) => ({ title, unit: 'ms', lines: [{ name: 'first', points }, { name: 'a second line', points }], ...more })
const REPORT = {
  scenario: 'fanout',
  settings: { streams: 15_000, url: 'http://127.0.0.1:8080/<topic>' },
  ledger: { published: 100, acknowledged: 100, delivered: 1_500_000 },
  goals: [{ name: 'publish to receive, p99', value: 4.2, limit: { at_most: 5 }, unit: 'ms' }],
  measured: [{ name: 'delivered', value: 150_000, unit: 'per second' }],
  window: [1, 9],
  markers: [{ at: 5, what: 'server killed' }],
  plots: [
    plot('Latency', { log_scale: true }),
    plot('Memory by part', { unit: 'bytes', stacked: true }),
    plot('By percentile', { along: 'percentile', lines: [{ name: 'a second line', points: points.map(([, value]) => [value - 1, value]) }] }),
    plot('By streams', { along: { quantity: 'streams' } }),
  ],
  tables: [{ title: 'Memory', columns: ['part', 'processes', 'at the end, MiB', 'at most, MiB', 'per open stream, bytes'], rows: [['edges', 54, 1464.5, 1500, null]] }],
}

describe('the page of a load test', { timeout: 240_000 }, () => {
  let browser, directory, url
  before(async () => {
    browser = await launch()
    directory = mkdtempSync(join(tmpdir(), 'tidings-report-'))
    writeFileSync(join(directory, 'report.json'), JSON.stringify(REPORT))
    execFileSync(LOADTEST, ['compare', 'report.json', '--html', 'report.html'], { cwd: directory })
    url = pathToFileURL(join(directory, 'report.html')).href
  })
  after(async () => {
    await browser.close()
    rmSync(directory, { recursive: true })
  })

  const open = async (t, options) => {
    const context = await browser.newContext(options)
    t.after(() => context.close())
    const page = await context.newPage()
    const said = []
    const asked = []
    page.on('console', (message) => said.push(message.text()))
    page.on('pageerror', (error) => said.push(String(error)))
    page.on('request', (request) => asked.push(request.url()))
    await page.goto(url)
    return { page, said, asked }
  }

  for (const colorScheme of ['light', 'dark']) {
    for (const [form, width] of [['wide', 1280], ['narrow', 390]]) {
      test(`is whole on a ${colorScheme} screen ${width} pixels wide`, async (t) => {
        const { page, said, asked } = await open(t, { colorScheme, viewport: { width, height: 800 } })
        assert.match(await page.title(), /fanout: exact/)
        assert.equal(await page.locator(`svg.${form}:visible`).count(), REPORT.plots.length)
        assert.equal(await page.locator('svg:visible').count(), REPORT.plots.length)
        // Whatever is wider than the screen scrolls by itself.
        const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth])
        assert.ok(content <= screen, `${content} on ${screen}`)
        for (const drawing of await page.locator('svg:visible').all()) {
          await drawing.hover()
          const told = await page.locator('.read-out:visible').innerText()
          assert.match(told, /a second line\s+[\d.,]+/)
        }
        assert.deepEqual(said, [])
        // No browser asks the network for data.
        assert.deepEqual(asked.filter((asked) => !asked.startsWith('data:')), [url])
      })
    }
  }

  test('plots over time show the same moment', async (t) => {
    const { page } = await open(t, { viewport: { width: 1280, height: 2000 } })
    await page.locator('svg.wide').first().hover()
    assert.equal(await page.locator('svg.wide .cursor.shown').count(), 2)
    await page.locator('h1').hover()
    assert.equal(await page.locator('.cursor.shown').count(), 0)
    assert.equal(await page.locator('.read-out:visible').count(), 0)
  })

  test('reads without a script', async (t) => {
    const { page } = await open(t, { javaScriptEnabled: false, viewport: { width: 1280, height: 800 } })
    assert.match(await page.locator('main').innerText(), /1,500,000 deliveries, each once, in order/)
    assert.equal(await page.locator('svg:visible').count(), REPORT.plots.length)
  })
})

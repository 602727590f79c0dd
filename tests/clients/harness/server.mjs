// The real program, started on ports of its own, killed and started again.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import { Inbox } from './inbox.mjs'

const { TIDINGS } = process.env
assert.ok(TIDINGS, 'TIDINGS must name the program to test; ./dev test sets it')

const running = new Set()
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')))

let servers = 0

// Each server has a loopback address of its own: the ports that it had are still free when it is started again, and no client that
// reconnects from 127.0.0.1 can be given its port, and so be connected with itself.
export function address() {
  servers += 1
  return `127.${64 + ((process.pid >> 8) & 63)}.${process.pid & 255}.${servers}`
}

export class Server {
  #data = mkdtempSync(join(tmpdir(), 'tidings-clients-'))
  #environment
  #listen
  #child

  /** What publishing is done with, where it is asked who publishes. */
  token

  /** What it logs, line by line, since it was last started. */
  log

  /** Starts a server for the time of a test. Settings are those of the environment without their prefix: `{ HTTP__RETRY: '1s' }`. */
  static async start(test, settings = {}, host = address()) {
    const server = new Server(settings, host)
    test.after(() => server.#dispose())
    await server.start()
    return server
  }

  constructor(settings, host) {
    const prefixed = Object.entries(settings).map(([name, value]) => [`TIDINGS_${name}`, value])
    this.#environment = { ...process.env, TIDINGS_TELEMETRY__FORMAT: 'json', ...Object.fromEntries(prefixed) }
    this.#listen = { http: `${host}:0`, grpc: `${host}:0`, admin: `${host}:0` }
  }

  /** Starts it, with the data and the ports that it had, and waits until it is ready. */
  async start() {
    const { http, grpc, admin } = this.#listen
    const flags = ['--http', http, '--grpc', grpc, '--admin', admin, '--data', join(this.#data, 'data')]
    const child = spawn(TIDINGS, ['serve', ...flags], {
      cwd: this.#data,
      env: this.#environment,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#child = child
    running.add(child)
    child.once('exit', () => running.delete(child))
    this.log = new Inbox()
    const ended = read(child.stderr, this.log).then(() => {
      throw new Error(`the server ended before it was ready:\n${this.log.events.map((line) => JSON.stringify(line)).join('\n')}`)
    })
    const isReady = ({ message }) => message === 'ready'
    await Promise.race([this.log.until((lines) => lines.some(isReady)), ended])
    // That it ends from here on is no surprise.
    ended.catch(() => {})
    this.#listen = this.log.events.find(isReady)
  }

  /** Ends it and waits until it has ended: SIGKILL at once, SIGTERM in good order. */
  async end(signal) {
    const child = this.#child
    if (child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, 'exit')
    child.kill(signal)
    const [code, by] = await exit
    if (signal === 'SIGTERM') assert.deepEqual([code, by], [0, null], 'it did not end in good order')
  }

  /** Where its streams are: an address and a port. */
  get http() {
    return this.#listen.http
  }

  /** The address of a stream of a topic. */
  events(topic, parameters = {}) {
    const scheme = this.#environment.TIDINGS_HTTP__TLS_CERT ? 'https' : 'http'
    return `${scheme}://${this.#listen.http}/v1/events?${new URLSearchParams({ topic, ...parameters })}`
  }

  /** Publishes events, each `{ topics, data, type, key }`, in order; fails unless all were accepted. */
  async publish(events) {
    const response = await fetch(`http://${this.#listen.grpc}/v1/publish`, {
      method: 'POST',
      headers: {
        'content-type': 'application/x-ndjson',
        connection: 'close',
        ...(this.token && { authorization: `Bearer ${this.token}` }),
      },
      body: events.map((event) => `${JSON.stringify(event)}\n`).join(''),
    })
    const text = await response.text()
    const answers = text.split('\n').slice(0, -1)
    const refused = answers.filter((line) => !JSON.parse(line).results)
    if (!response.ok || refused.length > 0 || answers.length !== events.length) {
      throw new Error(`${answers.length - refused.length} of ${events.length} were accepted: ${response.status} ${refused[0] ?? text}`)
    }
  }

  /** Takes a user's tokens back, with a token that may. */
  revoke({ user, token }) {
    const env = { ...process.env, TIDINGS_TOKEN: token }
    execFileSync(TIDINGS, ['revoke', '--user', user, '--url', `http://${this.#listen.grpc}`], { env, stdio: 'pipe' })
  }

  async #dispose() {
    await this.end('SIGKILL')
    rmSync(this.#data, { recursive: true, force: true })
  }
}

async function read(stderr, log) {
  for await (const line of createInterface({ input: stderr })) log.received(parsed(line))
}

// A panic is no JSON.
function parsed(line) {
  try {
    return JSON.parse(line)
  } catch {
    return { message: line }
  }
}

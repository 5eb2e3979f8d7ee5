// Plays every scenario of a JSON file with the official client, all at once in this process, and
// writes what was observed as JSON to stdout. Its counterpart is python_side.py.
import { readFileSync } from 'node:fs'
import { RealtimeChannel, RealtimeClient, postgresChangesFilter } from '@supabase/realtime-js'
import WebSocket from 'ws'

const { base, scale, patience, stagger, scenarios } = JSON.parse(readFileSync(process.argv[2]))
const realSetTimeout = globalThis.setTimeout
// The library's clock runs faster, so that its fixed delays cost as little as our options do.
globalThis.setTimeout = (work, ms, ...args) => realSetTimeout(work, (ms ?? 0) * scale, ...args)
const pause = (ms) => new Promise((resolve) => realSetTimeout(resolve, ms))
for (const level of ['log', 'warn', 'error']) console[level] = () => {}
// Exceptions that the library lets escape; a browser would print them and go on.
process.on('uncaughtException', () => {})
process.on('unhandledRejection', () => {})

const OPTIONS = {
  timeout: 'timeout',
  heartbeat_interval: 'heartbeatIntervalMs',
  reconnect_after: 'reconnectAfterMs',
  disconnect_on_empty_channels_after: 'disconnectOnEmptyChannelsAfterMs',
  log_level: 'logLevel',
  access_token: 'accessToken',
  heartbeat_callback: 'heartbeatCallback',
}
const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase())
const METHODS = { endpoint_url: 'endpointURL' }
const plain = (value) =>
  value === undefined ? null : JSON.parse(JSON.stringify(value, (_, item) => {
    if (item instanceof ArrayBuffer) return { bytes: Buffer.from(item).toString('hex') }
    return item
  }))

class Play {
  constructor(scenario) {
    this.scenario = scenario
    this.url = `${base}/js/${scenario.id}/realtime/v1`
    this.things = {}
    this.options = {}
    this.hooks = 0
    this.record = { statuses: {}, calls: [], results: {}, heartbeats: [], tries: [], logs: [] }
    this.open = {}
    this.tokens = 0
  }

  server(op, ...args) {
    return new Promise((resolve) => {
      const number = asked.push(resolve) - 1
      control.send(JSON.stringify([number, `js/${this.scenario.id}`, op, ...args]))
    })
  }

  async run() {
    this.things.client = this.make(this.scenario.client)
    for (const [at, step] of this.scenario.steps.entries()) {
      const found = await this.step(step)
      if (found === false) this.record.results[`stuck at ${at}`] = step
    }
    await pause(50)
    const record = plain(this.record)
    record.seen = await this.server('seen')
    this.things.client.disconnect()
    return record
  }

  make(options) {
    const found = { transport: WebSocket, params: { apikey: 'KEY' } }
    for (const [key, value] of Object.entries(options)) {
      found[OPTIONS[key] ?? key] = this.value(value)
    }
    return new RealtimeClient(this.url, found)
  }

  value(found) {
    if (Array.isArray(found)) return found.map((item) => this.value(item))
    if (found === null || typeof found !== 'object') return found
    if ('$seconds' in found) return found.$seconds * 1000
    if ('$bytes' in found) return new Uint8Array(Buffer.from(found.$bytes, 'hex')).buffer
    if ('$thing' in found) return this.things[found.$thing]
    if ('$tokens' in found) return () => this.token(found)
    if ('$delays' in found) return (tries) => this.delay(found.$delays, tries)
    if ('$heartbeats' in found) return (status) => this.record.heartbeats.push(status)
    if ('$logger' in found) return (kind, text) => this.logged(found.$logger, kind, text)
    if ('$filter' in found) return this.filter(found.$filter)
    return Object.fromEntries(Object.entries(found).map(([key, item]) => [key, this.value(item)]))
  }

  async token({ $tokens, after = 0 }) {
    const found = $tokens[Math.min(this.tokens++, $tokens.length - 1)]
    if (after) await pause(after * 1000 * scale)
    if (found === '!') throw new Error('no token today')
    return found
  }

  delay(delays, tries) {
    this.record.tries.push(tries)
    return delays[Math.min(tries, delays.length) - 1] * 1000
  }

  logged(word, kind, text) {
    if (String(text).includes(word)) this.record.logs.push([kind, text])
  }

  filter(calls) {
    return calls.reduce((builder, [name, ...args]) => builder[camel(name)](...args),
      postgresChangesFilter())
  }

  step([op, ...args]) {
    return this[`do_${op}`](...args)
  }

  async do_server(...args) {
    return (await this.server(...args)) ?? true
  }

  do_channel(name, topic, opts) {
    this.options[name] = this.value(opts ?? null)
    this.note(`channel ${name}`, () => {
      this.things[name] = this.things.client.channel(topic, ...(opts ? [this.options[name]] : []))
    })
  }

  do_direct(name, topic, opts) {
    const config = this.value(opts ?? { config: {} })
    this.things[name] = new RealtimeChannel(topic, config, this.things.client)
  }

  do_on(name, type, filter, handler, about = {}) {
    this.note(`on ${handler}`, () => {
      this.things[name].on(type, this.value(filter), (...args) => {
        const call = { handler, payload: plain(args[0]) }
        if (about.reads) call.state = plain(this.things[name].presenceState())
        if (about.counts) call.args = args.length
        this.record.calls.push(call)
        if (about.throws) throw new Error('thrown by a handler')
      })
    })
  }

  do_subscribe(name, about = {}) {
    const reactions = { ...about.react }
    const label = about.label ?? name
    this.record.statuses[label] ??= []
    const channel = this.things[name]
    const callback = (status, error) => {
      const message = error ? error.message : null
      this.record.statuses[label].push({ status, error: message, state: channel.state })
      const steps = reactions[status]
      delete reactions[status]
      for (const step of steps ?? []) this.step(step)
    }
    const args = about.timeout ? [callback, about.timeout * 1000] : [callback]
    this.note(`subscribe ${label}`, () => { channel.subscribe(...args) })
  }

  do_throw() {
    throw new Error('thrown by a callback')
  }

  do_call(result, target, method, ...args) {
    const thing = this.things[target]
    const values = args.map((arg) => this.value(arg))
    this.open[result] = 'pending'
    this.record.results[result] = 'pending'
    const settle = (found) => { this.record.results[result] = this.open[result] = found }
    try {
      const found = thing[METHODS[method] ?? camel(method)](...values)
      Promise.resolve(found).then(
        (value) => settle({ value: value instanceof RealtimeChannel ? null : plain(value) }),
        (error) => settle({ error: error.message }),
      )
    } catch (error) {
      settle({ error: error.message })
    }
  }

  do_await(result) {
    return this.until(() => result in this.open && this.open[result] !== 'pending')
  }

  do_construct(result, options) {
    this.note(result, () => this.make({ params: {}, ...options }))
  }

  do_read(result, target, name) {
    const found = this.things[target][METHODS[name] ?? camel(name)]
    const value = typeof found === 'function' ? found.call(this.things[target]) : found
    this.record.results[result] = name === 'channels' ? value.map((item) => item.topic) : plain(value)
  }

  do_same(result, one, other) {
    this.record.results[result] = this.things[one] === this.things[other]
  }

  do_options(result, name) {
    this.record.results[result] = plain(this.options[name])
  }

  do_hooks(result) {
    const before = this.hooks
    this.hooks = this.things.client.stateChangeCallbacks.open.length
    this.record.results[result] = this.hooks - before
  }

  async do_ask(result, op, ...args) {
    this.record.results[result] = await this.server(op, ...args)
  }

  do_status(label, status, count = 1) {
    const all = () => this.record.statuses[label] ?? []
    return this.until(() => all().filter((item) => item.status === status).length >= count)
  }

  do_calls(handler, count = 1) {
    return this.until(
      () => this.record.calls.filter((call) => call.handler === handler).length >= count)
  }

  do_heartbeats(status, count = 1) {
    return this.until(() => this.record.heartbeats.filter((item) => item === status).length >= count)
  }

  async do_sleep(seconds) {
    await pause(seconds * 1000 * scale)
  }

  note(name, work) {
    try {
      work()
    } catch (error) {
      this.record.results[name] = { error: error.message }
    }
  }

  async until(condition) {
    const end = performance.now() + patience * 1000
    while (!condition()) {
      if (performance.now() > end) return false
      await pause(8)
    }
    return true
  }
}

// One wire for the server's steps of all scenarios.
const asked = []
const control = new WebSocket(`${base}/control`)
control.on('message', (data) => {
  const [number, found] = JSON.parse(data)
  asked[number](found)
})
await new Promise((resolve) => control.on('open', resolve))

const played = await Promise.all(scenarios.map(async (scenario, at) => {
  await pause(at * stagger)
  const record = await new Play(scenario).run().catch((error) => ({ failed: String(error.stack) }))
  return [scenario.id, record]
}))
process.stdout.write(JSON.stringify(Object.fromEntries(played)), () => process.exit(0))

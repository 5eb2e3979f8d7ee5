// Runs the JavaScript of docs/porting-from-js.md with the official client, each piece with a client
// of its own, until all that should be called was called. Writes that, and what failed, to stdout.
import { readFileSync } from 'node:fs'
import { RealtimeClient, postgresChangesFilter } from '@supabase/realtime-js'
import WebSocket from 'ws'

const { url, key, token, pieces, wanted } = JSON.parse(readFileSync(process.argv[2]))
const AsyncFunction = (async () => {}).constructor
const called = new Set()
const failures = []
process.on('uncaughtException', (error) => failures.push(String(error)))
process.on('unhandledRejection', (error) => failures.push(String(error)))
globalThis.WebSocket = WebSocket
console.warn = () => {}

// What supabase-js makes of its part for Realtime.
function createClient(url, key, options = {}) {
  const realtime = new RealtimeClient(`${url}/realtime/v1`, {
    accessToken: options.accessToken ?? (async () => token),
    ...options.realtime,
    params: { apikey: key },
  })
  return {
    realtime,
    channel: (name, opts) => realtime.channel(name, opts),
    getChannels: () => realtime.getChannels(),
    removeChannel: (channel) => realtime.removeChannel(channel),
    removeAllChannels: () => realtime.removeAllChannels(),
  }
}

// What stands in the reader's own program.
function surroundings(title) {
  const tells = (name) => () => called.add(`${title}: ${name}`)
  const supabase = createClient(url, key)
  const isPrivate = title.includes('from the database')
  const channel = isPrivate
    ? supabase.channel('topic:5', { config: { private: true } })
    : supabase.channel('room')
  const console = {}
  for (const name of ['log', 'debug', 'warn', 'error']) console[name] = tells(name)
  const own = {}
  for (const name of ['show', 'added', 'removed', 'save', 'move', 'ready', 'add', 'change', 'remove']) {
    own[name] = tells(name)
  }
  return {
    ...own, supabase, channel, console, createClient, RealtimeClient, postgresChangesFilter,
    url, key, token, roomId: 5, userId: 'anna',
    onMouseMove: (handler) => handler({ x: 1 }),
    useEffect: (effect) => effect()(),
    tells,
  }
}

async function run({ title, code }) {
  const { tells, ...around } = surroundings(title)
  const { supabase, channel } = around
  const found = await new AsyncFunction(...Object.keys(around), code)(...Object.values(around))
  const table = { event: '*', schema: 'public', table: 'todos' }
  if (typeof found === 'function') channel.on('postgres_changes', table, found)
  if (typeof found === 'object') {
    channel.on('postgres_changes', { ...table, table: 'orders', ...found }, tells('heard'))
  }
  for (const each of supabase.getChannels()) if (!each.joinedOnce) each.subscribe()
}

for (const piece of pieces) {
  await run(piece).catch((error) => failures.push(`${piece.title}: ${error}`))
}
const deadline = Date.now() + 15000
while (!wanted.every((each) => called.has(each)) && Date.now() < deadline) {
  await new Promise((resolve) => setTimeout(resolve, 20))
}
process.stdout.write(JSON.stringify({ called: [...called], failures }), () => process.exit())

// The tour of the official client. test_tour.py starts it, carries out its requests over stdin
// and stdout (rows, tokens, a restart, our own client), and reads its results.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const need = createRequire(new URL('../../contract/differential/package.json', import.meta.url))
const { RealtimeClient } = need('@supabase/realtime-js')
const WebSocket = need('ws')

const { url, anon, member, owner } = JSON.parse(process.argv[2])
for (const level of ['log', 'warn', 'error', 'info']) console[level] = () => {}

const asked = []
createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, value, error } = JSON.parse(line)
  if (error) asked[id].reject(new Error(error))
  else asked[id].resolve(value)
})
const say = (message) => process.stdout.write(JSON.stringify(message) + '\n')
const ask = (op, ...args) =>
  new Promise((resolve, reject) => say({ id: asked.push({ resolve, reject }) - 1, op, args }))

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
async function until(what, check) {
  for (let tries = 0; tries < 1500; tries++) {
    if (check()) return
    await pause(10)
  }
  throw new Error(`never came: ${what}`)
}
const hex = (buffer) => Buffer.from(buffer).toString('hex')

class Side {
  constructor(vsn) {
    this.vsn = vsn
    this.clients = []
  }

  name(step) {
    return `${step}-${this.vsn[0]}`
  }

  client({ vsn = this.vsn, key = anon } = {}) {
    const params = { apikey: key }
    const client = new RealtimeClient(url, { params, vsn, transport: WebSocket, timeout: 15000 })
    this.clients.push(client)
    return client
  }

  async as(token) {
    const client = this.client()
    await client.setAuth(token)
    return client
  }
}

const joined = (channel) =>
  new Promise((resolve, reject) =>
    channel.subscribe((status, error) => {
      if (status === 'SUBSCRIBED') resolve(channel)
      else reject(error ?? new Error(status))
    })
  )

function flowing(channel, times = 1) {
  const seen = []
  channel.on('system', {}, ({ extension, message }) => {
    if (extension === 'postgres_changes') seen.push(message)
  })
  return (count = times) =>
    until('Subscribed to PostgreSQL', () => seen.length >= count).then(() => [...seen])
}

const tell = (event, payload) => ({ type: 'broadcast', event, payload })

const steps = {
  async broadcast(on) {
    const topic = on.name('broadcast')
    const heard = { one: [], two: [] }
    const one = on.client().channel(topic, { config: { broadcast: { self: true, ack: true } } })
    const two = on.client().channel(topic)
    one.on('broadcast', { event: 'chat' }, ({ payload }) => heard.one.push(payload))
    two.on('broadcast', { event: 'chat' }, ({ payload }) => heard.two.push(payload))
    await Promise.all([joined(one), joined(two)])
    const results = [await one.send(tell('chat', { n: 1 })), await two.send(tell('chat', { n: 2 }))]
    await until('both', () => heard.one.length === 2 && heard.two.length)
    const left = await one.unsubscribe()
    return { results, heard, left }
  },

  async binary(on) {
    const topic = on.name('binary')
    const heard = { new: [], old: [] }
    const sender = on.client({ vsn: '2.0.0' }).channel(topic, { config: { broadcast: { ack: true } } })
    const receiver = on.client({ vsn: '2.0.0' }).channel(topic)
    const old = on.client({ vsn: '1.0.0' }).channel(topic)
    receiver.on('broadcast', { event: '*' }, (m) => heard.new.push(m.event === 'end' ? 'end' : hex(m.payload)))
    old.on('broadcast', { event: '*' }, (m) => heard.old.push(m.event))
    await Promise.all([joined(sender), joined(receiver), joined(old)])
    const bytes = new Uint8Array([0, 1, 127, 255]).buffer
    const results = [await sender.send(tell('bytes', bytes)), await sender.send(tell('end', {}))]
    await until('the end', () => heard.new.length === 2 && heard.old.length)
    return { results, heard }
  },

  async presence(on) {
    const topic = on.name('presence')
    const events = []
    const config = (key) => ({ config: { presence: { key, enabled: true } } })
    const ann = on.client().channel(topic, config('ann'))
    const bob = on.client().channel(topic, config('bob'))
    bob.on('presence', { event: 'join' }, ({ key, newPresences }) => {
      events.push(['join', key, newPresences.map(({ status }) => status)])
    })
    bob.on('presence', { event: 'leave' }, ({ key, leftPresences }) => {
      events.push(['leave', key, leftPresences.map(({ status }) => status)])
    })
    ann.on('presence', { event: 'sync' }, () => {})
    await joined(ann)
    const results = [await ann.track({ status: 'here' })]
    await joined(bob)
    await until('ann', () => events.length === 1)
    results.push(await ann.track({ status: 'busy' }))
    await until('the update', () => events.length === 3)
    const state = Object.fromEntries(
      Object.entries(bob.presenceState()).map(([key, all]) => [key, all.map(({ status }) => status)])
    )
    results.push(await bob.track({ status: 'new' }))
    await until('bob at ann', () => ann.presenceState().bob)
    results.push(await ann.untrack())
    await until('ann gone', () => !bob.presenceState().ann)
    bob.socket.disconnect()
    await until('bob gone', () => !ann.presenceState().bob)
    return { results, state, events: events.filter(([, key]) => key === 'ann') }
  },

  async changes(on) {
    const room = on.name('changes')
    const rows = { all: [], big: [], deleted: [] }
    const about = { schema: 'public', table: 'messages' }
    const channel = on.client().channel(room)
    channel
      .on('postgres_changes', { event: '*', ...about, filter: `room=eq.${room}` }, (change) => {
        rows.all.push([change.eventType, change.new.n ?? null, change.old.n ?? null, change.errors])
      })
      .on('postgres_changes', { event: 'INSERT', ...about, filter: `room=eq.${room},n=gt.1` }, (change) => {
        rows.big.push(change.new.body)
      })
      .on('postgres_changes', { event: 'DELETE', ...about, filter: `room=eq.${room}` }, (change) => {
        rows.deleted.push(change.old.body)
      })
    const ready = flowing(channel)
    await joined(channel)
    const told = await ready()
    await ask('sql', `insert into messages(room, body, n) values ('${room}', 'a', 1), ('${room}', 'b', 2)`)
    await ask('sql', `update messages set n = 20 where room = '${room}' and n = 2`)
    await ask('sql', `delete from messages where room = '${room}' and n = 1`)
    await until('the rows', () => rows.all.length === 4 && rows.deleted.length && rows.big.length)
    return { told, rows }
  },

  async 'bad filter'(on) {
    const channel = on.client().channel(on.name('bad'))
    channel.on('postgres_changes', { event: '*', schema: 'public', table: 'messages', filter: 'nope=eq.1' }, () => {})
    const ready = flowing(channel)
    await joined(channel)
    return (await ready())[0].split('Exception: ')[1]
  },

  async private(on) {
    const heard = { member: [], other: [] }
    const options = { config: { private: true, broadcast: { ack: true } } }
    const event = on.name('private')
    const refused = await joined(on.client().channel('private-room', options)).catch((e) => e.message)
    const one = (await on.as(member)).channel('private-room', options)
    const two = (await on.as(member)).channel('private-room', options)
    const outside = on.client().channel('private-room')
    two.on('broadcast', { event }, ({ payload }) => heard.member.push(payload))
    outside.on('broadcast', { event }, ({ payload }) => heard.other.push(payload))
    await Promise.all([joined(one), joined(two), joined(outside)])
    const results = [await one.send(tell(event, { secret: 1 }))]
    await until('the secret', () => heard.member.length)
    const reader = (await on.as(member)).channel('read-only-room', options)
    await joined(reader)
    // The server does not answer a broadcast that is not allowed.
    results.push(await reader.send(tell(event, {}), { timeout: 300 }))
    return { refused, results, heard }
  },

  async http(on) {
    const topic = on.name('http')
    const heard = []
    const listener = on.client().channel(topic)
    listener.on('broadcast', { event: '*' }, (m) => heard.push([m.event, m.payload]))
    await joined(listener)
    const results = [await on.client().channel(topic).httpSend('single', { x: 1 })]
    await until('the message', () => heard.length)
    const allowed = (await on.as(member)).channel('private-room', { config: { private: true } })
    results.push(await allowed.httpSend('e', { x: 2 }))
    const denied = on.client().channel('private-room', { config: { private: true } })
    results.push(await denied.httpSend('e', {}).catch((error) => error.message))
    // The channel is not joined, so this one goes over HTTP as well, as a batch.
    results.push(await on.client().channel(topic).send(tell('batch', { x: 3 })))
    await until('the batch', () => heard.length === 2)
    return { results, heard }
  },

  async token(on) {
    const room = on.name('token')
    const notes = []
    const statuses = []
    const client = on.client()
    await client.setAuth(anon)
    const channel = client.channel(room)
    channel.on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'private_notes' }, (change) => {
      if (change.new.note.startsWith(room)) notes.push(change.new.note.slice(room.length + 1))
    })
    const marks = []
    const marked = { event: 'INSERT', schema: 'public', table: 'messages', filter: `room=eq.${room}` }
    channel.on('postgres_changes', marked, () => marks.push('seen'))
    const system = []
    channel.on('system', {}, ({ message }) => system.push(message))
    const subscribed = (count) => until(`subscription ${count}`, () => system.length >= count)
    channel.subscribe((status) => statuses.push(status))
    await subscribed(1)
    const insert = (note) =>
      ask('sql', `insert into private_notes(owner, note) values ('${owner}', '${room} ${note}')`)
    await insert('as anon')
    // Changes come in order. If this one is here, the one before it was filtered out.
    await ask('sql', `insert into messages(room, body, n) values ('${room}', 'mark', 1)`)
    await until('the mark', () => marks.length)
    await client.setAuth(member)
    await subscribed(2)
    await insert('as member')
    await until('the note', () => notes.length)
    await client.setAuth(await ask('token', 1.0))
    await subscribed(4)
    await until('the close', () => statuses.length > 1)
    return { notes, system, statuses }
  },

  async database(on) {
    const event = on.name('database')
    const heard = []
    const since = Date.now() - 60_000
    const open = on.client().channel(event)
    open.on('broadcast', { event }, (m) => heard.push(['send', m.payload.x, typeof m.meta.id]))
    await joined(open)
    await ask('sql', `select realtime.send('{"x": 1}', '${event}', '${event}', false)`)
    await until('realtime.send', () => heard.length === 1)
    const closed = (await on.as(member)).channel('private-room', { config: { private: true } })
    closed.on('broadcast', { event: 'INSERT' }, ({ payload }) => {
      if (payload.record.v === event) heard.push([payload.operation, payload.table, payload.old_record])
    })
    await joined(closed)
    await ask('sql', `insert into broadcasted(v) values ('${event}')`)
    await until('broadcast_changes', () => heard.length === 2)
    const replay = { since, limit: 25 }
    const late = (await on.as(member)).channel('private-room', { config: { private: true, broadcast: { replay } } })
    late.on('broadcast', { event: 'INSERT' }, ({ payload, meta }) => {
      if (payload.record.v === event) heard.push(['replayed', meta.replayed])
    })
    await joined(late)
    await until('the replay', () => heard.length === 3)
    return heard
  },
}

async function together(on, theirs) {
  const room = `${on.name('together')}-${theirs[0]}`
  const heard = []
  const both = on.vsn === '2.0.0' && theirs === '2.0.0'
  const config = { broadcast: { ack: true }, presence: { key: 'js', enabled: true } }
  const channel = on.client().channel(room, { config })
  channel.on('broadcast', { event: '*' }, ({ event, payload }) => {
    heard.push([event, payload instanceof ArrayBuffer ? hex(payload) : payload])
  })
  channel.on('presence', { event: 'sync' }, () => {})
  await Promise.all([joined(channel), ask('join', room, theirs)])
  const results = [await channel.send(tell('from-js', { text: 'añ"é' }))]
  if (both) results.push(await channel.send(tell('bytes', new Uint8Array([1, 2, 255]).buffer)))
  const sent = [await ask('send', room, 'from-python', { text: '☃' })]
  if (both) sent.push(await ask('send bytes', room, 'bytes', '00ff'))
  await channel.track({ who: 'js' })
  await ask('track', room, { who: 'python' })
  await until('python', () => channel.presenceState().python && heard.length === sent.length)
  const seen = await ask('heard', room, results.length, ['js', 'python'])
  await ask('leave', room)
  await until('python gone', () => !channel.presenceState().python)
  return { results, sent, heard, seen }
}

async function restart(sides) {
  const all = sides.map((on) => {
    const room = on.name('restart')
    const found = { statuses: [], heard: [], rows: [] }
    const channel = on.client().channel(room, { config: { broadcast: { self: true } } })
    channel.on('broadcast', { event: 'x' }, ({ payload }) => found.heard.push(payload.n))
    channel.on('postgres_changes', { event: '*', schema: 'public', table: 'messages', filter: `room=eq.${room}` },
      (change) => found.rows.push(change.new.body))
    const ready = flowing(channel)
    channel.subscribe((status, error) => found.statuses.push([status, error?.message ?? null]))
    return { room, channel, found, ready }
  })
  const use = async (n) => {
    for (const { channel, room } of all) {
      channel.send(tell('x', { n }))
      await ask('sql', `insert into messages(room, body) values ('${room}', 'row ${n}')`)
    }
    await until(`events ${n}`, () => all.every(({ found }) => found.heard.length >= n && found.rows.length >= n))
  }
  await Promise.all(all.map(({ ready }) => ready(1)))
  await use(1)
  await ask('restart')
  await Promise.all(all.map(({ ready }) => ready(2)))
  await use(2)
  return all.map(({ found }) => found)
}

const results = {}
async function run(name, sides, work) {
  try {
    results[name] = await work(...sides)
  } catch (error) {
    results[name] = { failed: error.stack }
  }
  // A client that stays would join again after the restart, and change the results.
  for (const on of sides) for (const client of on.clients) client.disconnect()
}

const VSNS = ['1.0.0', '2.0.0']
const work = VSNS.flatMap((vsn) => [
  ...Object.entries(steps)
    .filter(([name]) => name !== 'binary' || vsn === '2.0.0')
    .map(([name, step]) => run(`${name} ${vsn}`, [new Side(vsn)], step)),
  ...VSNS.map((theirs) =>
    run(`together ${vsn} ${theirs}`, [new Side(vsn)], (on) => together(on, theirs))
  ),
])
await Promise.all(work)
await run('restart', VSNS.map((vsn) => new Side(vsn)), (...sides) => restart(sides))
say({ results })
process.exit(0)

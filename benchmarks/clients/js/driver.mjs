// What the JavaScript clients share: the protocol of driver.py over stdin and stdout.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

export const need = createRequire(`${process.env.PEERS}/js/`)
export const spec = JSON.parse(process.argv[2])
export const work = spec.work
export const topics = Array.from({ length: work.channels }, (_, number) => `room${number}`)

const monotonic = () => Number(process.hrtime.bigint()) / 1e9
const seconds = ({ user, system }) => (user + system) / 1e6
const tell = (values) => process.stdout.write(JSON.stringify(values) + '\n')

export const counter = { left: 0, finish: () => {} }
export const joined = { left: 0, finish: () => {} }

export function countJoin() {
  if (--joined.left === 0) joined.finish()
}

const reads = {
  nothing: () => {},
  x: (payload) => payload.payload.x,
  new: (payload) => payload.new.id,
  record: (payload) => payload.data.record.id,
  event_type: (payload) => payload.eventType,
  type: (payload) => payload.data.type,
}

export function makeHandler(name = work.read) {
  const read = reads[name]
  const handler = (payload) => {
    read(payload)
    if (--counter.left === 0) counter.finish()
  }
  return work.asynchronous ? async (payload) => handler(payload) : handler
}

export function during(count, act, counted = counter) {
  return new Promise((resolve) => {
    const clock = { at: monotonic(), started: process.cpuUsage() }
    counted.finish = () =>
      resolve({ cpu: seconds(process.cpuUsage(clock.started)), started: clock.at, ended: monotonic() })
    counted.left = count
    if (act) act()
    else tell({ armed: true })
  })
}

export async function latencies(count, send) {
  const taken = []
  const started = process.cpuUsage()
  for (let number = 0; number < count; number++) {
    const before = monotonic()
    await send({ x: number, y: 34, user: 'anna' })
    taken.push(monotonic() - before)
  }
  return { cpu: seconds(process.cpuUsage(started)), latencies: taken }
}

export async function serve(operations) {
  const all = {
    round: ({ count }) => during(count),
    rejoin: ({ count }) => during(count, null, joined),
    memory: async () => {
      globalThis.gc()
      return { rss: process.memoryUsage().rss }
    },
    idle: async ({ seconds: time }) => {
      const started = process.cpuUsage()
      await new Promise((resolve) => setTimeout(resolve, time * 1000))
      return { cpu: seconds(process.cpuUsage(started)) }
    },
    ...operations,
  }
  tell({ ready: true })
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    tell(await all[command.op](command))
  }
  process.exit(0)
}

// npm @supabase/realtime-js, vsn 2.0.0.
import { countJoin, during, latencies, makeHandler, need, serve, spec, topics, work } from './driver.mjs'

const { RealtimeClient } = need('@supabase/realtime-js')
const client = new RealtimeClient(spec.url, { params: { apikey: spec.who }, transport: need('ws') })
const changes = { event: '*', schema: 'public', table: 'todos' }
const filters = { broadcast: { event: 'cursor' }, postgres_changes: changes, presence: { event: 'sync' } }
const handler = makeHandler()

const channels = topics.map((topic) =>
  client
    .channel(topic, { config: { broadcast: { ack: work.ack } } })
    .on(work.event, filters[work.event], handler)
)
await Promise.all(
  channels.map(
    (channel) =>
      new Promise((resolve, reject) =>
        channel.subscribe((status, error) => {
          if (status !== 'SUBSCRIBED') return reject(error ?? status)
          countJoin()
          resolve()
        })
      )
  )
)

const send = (payload) => channels[0].send({ type: 'broadcast', event: 'cursor', payload })

await serve({
  send: ({ count }) =>
    during(1, async () => {
      for (let number = 0; number < count; number++) {
        await send({ x: number, y: 34, user: 'anna' })
        // Promises alone would never let the socket be written to the end.
        if (number % 500 === 499) await new Promise(setImmediate)
      }
    }),
  acked: ({ count }) => latencies(count, send),
})

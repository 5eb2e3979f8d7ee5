// npm phoenix, vsn 2.0.0: no binary broadcasts, and every push asks for a reply.
import { countJoin, latencies, makeHandler, need, serve, spec, topics, work } from './driver.mjs'

const { Presence, Socket } = need('phoenix')
const socket = new Socket(spec.url, { params: { apikey: spec.who }, transport: need('ws') })
socket.connect()
const handler = makeHandler({ new: 'record', event_type: 'type' }[work.read])
const config = {
  broadcast: { ack: work.ack },
  presence: { enabled: work.event === 'presence', key: '' },
  postgres_changes:
    work.event === 'postgres_changes' ? [{ event: '*', schema: 'public', table: 'todos' }] : [],
}

const channels = topics.map((topic) => {
  const channel = socket.channel(`realtime:${topic}`, { config })
  if (work.event === 'presence') new Presence(channel).onSync(handler)
  else channel.on(work.event, handler)
  return channel
})
await Promise.all(
  channels.map(
    (channel) =>
      new Promise((resolve, reject) => {
        const told = () => {
          countJoin()
          resolve()
        }
        channel.join().receive('ok', told).receive('error', reject)
      })
  )
)

const send = (payload) =>
  new Promise((resolve, reject) =>
    channels[0]
      .push('broadcast', { type: 'broadcast', event: 'cursor', payload })
      .receive('ok', resolve)
      .receive('error', reject)
  )

await serve({ acked: ({ count }) => latencies(count, send) })

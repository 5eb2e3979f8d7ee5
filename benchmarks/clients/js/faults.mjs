// npm @supabase/realtime-js under the faults of benchmarks/faults.py.
import { createRequire } from 'node:module'

const need = createRequire(`${process.env.PEERS}/js/`)
const { RealtimeClient } = need('@supabase/realtime-js')
const { url, key, heartbeat } = JSON.parse(process.argv[2])
const tell = (values) => process.stdout.write(JSON.stringify(values) + '\n')

// Without these Node ends: at the first exception of a handler, and when no socket is open.
process.on('uncaughtException', (error) => tell({ uncaught: String(error) }))
setInterval(() => {}, 1000)

const client = new RealtimeClient(url, {
  params: { apikey: key },
  heartbeatIntervalMs: heartbeat * 1000,
  transport: need('ws'),
})
client
  .channel('room')
  .on('broadcast', { event: 'tick' }, ({ payload }) => {
    if (payload.poison) throw new Error('a handler that raises')
    tell({ n: payload.n })
  })
  .subscribe((status) => tell({ status }))

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, connect as netConnect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, listen, listenHybrid } from '@upcall/vsock'
import { bulk, pingPong } from './measure.mjs'

const ROUNDS = 4_000
const BULK = 256 * 1024 * 1024
const CONNECTIONS = 500

/** Milliseconds from the call to a usable stream. */
async function dialling(dial) {
  const start = performance.now()
  for (let i = 0; i < CONNECTIONS; i++) (await dial()).destroy()
  return (performance.now() - start) / CONNECTIONS
}

export async function bench() {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-bench-'))
  const echo = (socket) => socket.on('error', () => {}).pipe(socket)
  const plain = createServer(echo).listen(join(folder, 'net'))
  await once(plain, 'listening')
  const unix = (await listen(`unix:${folder}/unix`)).on('connection', echo)
  const hybrid = await listenHybrid({ path: join(folder, 'hv'), route: () => connect(`unix:${folder}/unix`) })
  const dials = {
    'net.Socket over AF_UNIX (baseline)': async () => {
      const socket = netConnect(join(folder, 'net'))
      await once(socket, 'connect')
      return socket
    },
    'connect unix:': () => connect(`unix:${folder}/unix`),
    'connect hvsock:// through listenHybrid to unix:': () => connect(`hvsock://${folder}/hv:5000`),
  }
  const rows = []
  try {
    // Once without measuring, so that the first row does not pay for the warm-up of all.
    for (const dial of Object.values(dials)) {
      const socket = await dial()
      await pingPong(socket, ROUNDS)
      socket.destroy()
    }
    for (const [name, dial] of Object.entries(dials)) {
      const latency = await dialling(dial)
      const first = await dial()
      const round = await pingPong(first, ROUNDS)
      first.destroy()
      const second = await dial()
      const rate = await bulk(second, BULK)
      second.destroy()
      rows.push({ name, latency, round, rate })
    }
  } finally {
    plain.close()
    await hybrid.close()
    await unix.close()
    rmSync(folder, { recursive: true })
  }
  const [baseline] = rows
  return rows.map(({ name, latency, round, rate }) => ({
    case: name,
    'dial, ratio': (latency / baseline.latency).toFixed(2),
    '1 KiB round trip, ratio': (round / baseline.round).toFixed(2),
    'throughput, ratio': (rate / baseline.rate).toFixed(2),
    'round trip, µs': round.toFixed(0),
    'MB/s': rate.toFixed(0),
  }))
}

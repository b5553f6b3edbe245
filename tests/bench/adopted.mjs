import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, connect as netConnect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, listen } from '@upcall/vsock'
import { bulk, pingPong, quantile } from './measure.mjs'
import { unixForVsock } from './stand-in.mjs'

const ROUNDS = 31
/** How much longer an adopted socket may take. */
const ALLOWED = 1.1

const cases = {
  '1 KiB ping-pong': { unit: 'µs', measure: (socket) => pingPong(socket, 1_500), slowdown: (plain, adopted) => adopted / plain },
  'bulk through an echo': {
    unit: 'MB/s',
    measure: (socket) => bulk(socket, 32 * 1024 * 1024),
    slowdown: (plain, adopted) => plain / adopted,
  },
}

/**
 * Sockets that the addon made and Node adopted, against Node's own, both over AF_UNIX, both ends of the same kind. They take turns and
 * each ratio is of two neighbours, so what else the machine does meets both; the median of the rounds counts.
 */
export async function bench() {
  const missing = unixForVsock()
  if (missing) return [{ case: missing }]
  const folder = mkdtempSync(join(tmpdir(), 'upcall-bench-'))
  const echo = (socket) => socket.on('error', () => {}).pipe(socket)
  const plain = createServer({ allowHalfOpen: true }, echo).listen(join(folder, 'net'))
  await once(plain, 'listening')
  const adopted = (await listen('vsock://local:1')).on('connection', echo)
  const dials = {
    async plain() {
      const socket = netConnect({ path: join(folder, 'net'), allowHalfOpen: true })
      await once(socket, 'connect')
      return socket
    },
    adopted: () => connect('vsock://local:1'),
  }
  try {
    const rows = []
    for (const [name, { unit, measure, slowdown }] of Object.entries(cases)) {
      const { plain, adopted } = await takeTurns(dials, measure)
      const slowdowns = plain.map((value, i) => slowdown(value, adopted[i]))
      const ratio = quantile(slowdowns, 0.5)
      rows.push({
        case: name,
        'net.Socket': `${quantile(plain, 0.5).toFixed(1)} ${unit}`,
        adopted: `${quantile(adopted, 0.5).toFixed(1)} ${unit}`,
        'time, ratio': ratio.toFixed(3),
        quartiles: `${quantile(slowdowns, 0.25).toFixed(2)} … ${quantile(slowdowns, 0.75).toFixed(2)}`,
        'within 10 %': ratio <= ALLOWED ? 'yes' : 'no',
      })
      if (ratio > ALLOWED) process.exitCode = 1
    }
    return rows
  } finally {
    plain.close()
    await adopted.close()
    rmSync(folder, { recursive: true })
  }
}

async function takeTurns(dials, measure) {
  const seen = { plain: [], adopted: [] }
  // The first rounds warm up.
  for (let round = -2; round < ROUNDS; round++) {
    for (const kind of round % 2 === 0 ? ['plain', 'adopted'] : ['adopted', 'plain']) {
      const socket = await dials[kind]()
      const value = await measure(socket)
      socket.destroy()
      if (round >= 0) seen[kind].push(value)
    }
  }
  return seen
}

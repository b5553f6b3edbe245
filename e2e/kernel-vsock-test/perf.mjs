// The kernel's vsock_perf: how fast bytes go from guest to guest, as ratios to the same program over one guest's own loopback.
import { LOOPBACK_CID } from './guests.mjs'

const ROUNDS = 5
const PORT = 1234
const PERF_MS = 120_000
/** The receiver reads once more when it sees the end, and leaves. It never counts what is in its socket's buffer then. */
const SOCKET_BUFFER = 256 << 10

/** What vsock_perf is asked for. Its own default are blocks of 128 KiB. */
const LOADS = {
  'blocks of 128 KiB': { bytes: '128M', args: ['--buf-size', '128K'] },
  'blocks of 4 KiB': { bytes: '32M', args: ['--buf-size', '4K'] },
  'blocks of 128 KiB, MSG_ZEROCOPY': { bytes: '128M', args: ['--buf-size', '128K'], sender: ['--zerocopy'] },
}

/** Measures all ways in turn, ROUNDS times, and resolves with the rows of a table: medians. */
export async function measure([first, second]) {
  const ways = {
    'loopback in one guest': { from: first, to: { ...first, cid: LOOPBACK_CID } },
    'guest to guest': { from: first, to: second },
    'guest to guest, the other way': { from: second, to: first },
  }
  const rows = []
  for (const [load, options] of Object.entries(LOADS)) {
    const figures = Object.fromEntries(Object.keys(ways).map((way) => [way, []]))
    for (let i = 0; i < ROUNDS; i++)
      for (const [way, ends] of Object.entries(ways)) figures[way].push(await transfer(ends, options))
    const [baseline] = Object.values(figures).map(median)
    for (const [way, each] of Object.entries(figures)) {
      const rate = median(each)
      rows.push({ load, way, 'MiB/s': Math.round(rate), '×': Number((rate / baseline).toFixed(2)) })
    }
  }
  return rows
}

/** Resolves with MiB/s, as the receiver counts them. */
async function transfer({ from, to }, { bytes, args, sender = [] }) {
  const run = ({ vm }, more) =>
    vm.run('vsockPerf', { args: ['--port', PORT, ...args, ...more], timeoutMs: PERF_MS }, { timeoutMs: PERF_MS + 30_000 })
  const [received] = await Promise.all([run(to, []), run(from, ['--sender', to.cid, '--bytes', bytes, ...sender])])
  const total = Number(/total bytes received: (\d+)/.exec(received.output)?.[1])
  if (!(total > (parseInt(bytes, 10) << 20) - SOCKET_BUFFER)) throw new Error(`vsock_perf: ${received.output}`)
  return (Number(/rx performance: ([\d.]+) Gbits/.exec(received.output)[1]) * 1e9) / 8 / (1 << 20)
}

function median(figures) {
  return figures.toSorted((a, b) => a - b)[figures.length >> 1]
}

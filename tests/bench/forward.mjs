import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { quantile } from './measure.mjs'

const SIZE = 1024 ** 3
const ROUNDS = 7
const child = fileURLToPath(new URL('forward-child.mjs', import.meta.url))

const node =
  (role) =>
  (...words) =>
    spawn(process.execPath, [child, role, ...words], { stdio: ['ignore', 'pipe', 'inherit'] })
const socat = (near, far) =>
  spawn('socat', ['-b262144', `UNIX-LISTEN:${near},fork`, `UNIX-CONNECT:${far}`], { stdio: ['ignore', 'pipe', 'inherit'] })

/** User and system time of a process and of its children that it has waited for, in seconds. */
function cpuSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1].split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / 100
}

/** One way of one relay, source and sink in processes of their own. */
async function carry(relay, folder) {
  const [near, far] = ['near', 'far'].map((name) => join(folder, name))
  const sink = node('sink')(far)
  await once(sink.stdout, 'data')
  const carrying = relay(near, far)
  while (!existsSync(near)) await delay(5)
  const before = cpuSeconds(carrying.pid)
  const start = performance.now()
  const source = node('source')(near, String(SIZE))
  const [heard] = await once(sink.stdout, 'data')
  const seconds = (performance.now() - start) / 1000
  if (Number(heard) !== SIZE) throw new Error(`the sink heard ${heard} of ${SIZE} bytes`)
  sink.kill()
  await once(source, 'exit')
  // socat's child is counted when it has been waited for.
  await delay(50)
  const cpu = cpuSeconds(carrying.pid) - before
  carrying.kill()
  await once(carrying, 'exit')
  rmSync(near, { force: true })
  rmSync(far, { force: true })
  return { rate: SIZE / 2 ** 20 / seconds, cpu: cpu / (SIZE / 2 ** 30) }
}

/**
 * A bulk transfer between two Unix sockets, through `forward`, through Node's `pipeline`, and through socat where it is installed. They
 * take turns, so that what else the machine does meets all.
 */
export async function bench() {
  const relays = { 'pipeline of net.Socket (baseline)': node('pipeline'), forward: node('forward') }
  if (spawnSync('socat', ['-V']).status === 0) relays['socat -b262144'] = socat
  const folder = mkdtempSync(join(tmpdir(), 'upcall-bench-'))
  try {
    const results = Object.fromEntries(Object.keys(relays).map((name) => [name, []]))
    for (let round = 0; round < ROUNDS; round++)
      for (const [name, relay] of Object.entries(relays)) results[name].push(await carry(relay, folder))
    const [baseline] = Object.values(results)
    const ratio = (runs, of) =>
      quantile(
        runs.map((run, i) => of(run) / of(baseline[i])),
        0.5,
      ).toFixed(2)
    return Object.entries(results).map(([name, runs]) => ({
      case: name,
      'MiB/s, ratio': ratio(runs, ({ rate }) => rate),
      'CPU, ratio': ratio(runs, ({ cpu }) => cpu),
      'MiB/s': quantile(
        runs.map(({ rate }) => rate),
        0.5,
      ).toFixed(0),
      'CPU s/GiB': quantile(
        runs.map(({ cpu }) => cpu),
        0.5,
      ).toFixed(2),
    }))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

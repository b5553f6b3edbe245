// Our client and our hybrid socket beside those of others, doing the same work in turn: firecracker-go-sdk (Go) and dbs-upcall (Rust),
// built as for `npm run e2e -- peers`. Bare sockets of Node are the baseline. What is not installed is left out, and told.
import { fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { goPrograms, missingForGo } from '../../e2e/peers/go/build.mjs'
import { Program } from '../../e2e/peers/program.mjs'
import { built, missingPeerTools, runTool } from '../../e2e/peers/tools.mjs'
import { cpuSeconds, dials, requesters, WINDOW, works } from './hybrid-clients.mjs'
import { quantile } from './measure.mjs'

const SERVER = fileURLToPath(new URL('hybrid-server.mjs', import.meta.url))
const RUST_CLIENT = fileURLToPath(new URL('../../e2e/peers/rust/upcall-client', import.meta.url))
const MIB = 2 ** 20
const GIB = 2 ** 30
/** Each contender's turns; the median counts. */
const TURNS = 7
const AMOUNTS = { connect: 1_000, 'ping-pong': 4_000, send: 256 * MIB, receive: 256 * MIB }
const REQUESTS = 5_000
/** Clock ticks of /proc/<pid>/stat: 100 a second on every Linux that Node runs on. */
const TICKS = 100

export async function bench() {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-bench-'))
  const notes = []
  try {
    const go = await found(await missingForGo(), goPrograms, notes)
    const rust = await found(missingPeerTools('cargo', 'cc'), rustClient, notes)
    const servers = {
      'net.Socket': (path) => startNode('net', path),
      listenHybrid: (path) => startNode('listenHybrid', path),
      ...(go && { "Go's net": (path) => startProgram(go.peer, ['vmm', path]) }),
    }
    // The same for all clients, and nobody's of those that are compared.
    const neutral = go ? "Go's net" : 'net.Socket'
    const clients = {
      ...Object.fromEntries(Object.entries(dials).map(([name, dial]) => [name, inThisProcess(dial)])),
      ...(go && { 'firecracker-go-sdk': inGo(go.peer) }),
    }
    const probe = go ? 'firecracker-go-sdk' : 'net.Socket'
    return [
      ...(await compare(join(folder, 'clients'), `client of ${neutral}`, Object.entries(clients), servers[neutral])),
      ...(await compareServers(folder, probe, clients[probe], Object.entries(servers))),
      ...(await compareRequesters(join(folder, 'upcall'), servers[neutral], {
        ...requesters,
        ...(rust && { 'dbs-upcall': inRust(rust) }),
      })),
      ...notes.map((note) => ({ case: note })),
    ]
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** What `build` made; undefined, and a note on what to install, if something is missing. */
async function found(missing, build, notes) {
  if (!missing) return build()
  notes.push(`not measured: ${missing}`)
}

/** Not what the tests build, which is optimised less. */
async function rustClient() {
  const folder = await built({
    ...{ name: 'upcall-client-release', sources: [RUST_CLIENT], tool: 'cargo' },
    async build({ output, work }) {
      await runTool('cargo', ['build', '--release', '--locked', '--target-dir', work], { cwd: RUST_CLIENT })
      copyFileSync(join(work, 'release/upcall-client'), join(output, 'upcall-client'))
    },
  })
  return join(folder, 'upcall-client')
}

function inThisProcess(dial) {
  return async (path, work, amount) => {
    await works[work]((port) => dial(path, port), amount / 10)
    const [start, cpu] = [performance.now(), process.cpuUsage()]
    await works[work]((port) => dial(path, port), amount)
    return { seconds: (performance.now() - start) / 1000, cpu: cpuSeconds(cpu) }
  }
}

function inGo(program) {
  return async (path, work, amount) => {
    const child = spawn(program, ['bench', path, work, String(amount)], { stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    for await (const chunk of child.stdout) text += chunk
    const { error, ...measured } = JSON.parse(text)
    if (error) throw new Error(`${program} bench ${work}: ${error}`)
    return measured
  }
}

function inRust(program) {
  return async (path, count) => {
    const { base, size, irq } = WINDOW
    const request = { op: 'addMmio', base: Number(base), size: Number(size), irq, timeoutMs: 10_000 }
    const client = new Program(program, [path])
    try {
      const { ready } = await client.ask({ op: 'ready', timeoutMs: 10_000 })
      if (!ready) throw new Error('dbs-upcall is not ready')
      let answer
      // The first is for warming up.
      for (const times of [count / 10, count]) answer = await client.ask({ op: 'repeat', request, count: times })
      if (answer.seconds === undefined) throw new Error(`dbs-upcall: ${JSON.stringify(answer)}`)
      return answer
    } finally {
      await client.stop()
    }
  }
}

async function compare(path, title, clients, start) {
  const server = await start(path)
  try {
    const seen = await inTurn(clients, (client, work) => client(path, work, AMOUNTS[work]))
    return rows(title, seen)
  } finally {
    await server.stop()
  }
}

/** The same client for each; the CPU time is the server's, which did what comes before the measuring, too: a tenth more. */
async function compareServers(folder, probe, client, starters) {
  const servers = []
  try {
    for (const [name, start] of starters) {
      const path = join(folder, `server${servers.length}`)
      servers.push([name, { path, ...(await start(path)) }])
    }
    const seen = await inTurn(servers, async ({ path, pid }, work) => {
      const before = cpuOf(pid)
      const measured = await client(path, work, AMOUNTS[work])
      return { ...measured, cpu: (cpuOf(pid) - before) / 1.1 }
    })
    return rows(`server of ${probe}`, seen)
  } finally {
    for (const [, server] of servers) await server.stop()
  }
}

/** All works of all contenders, in turn: what else the machine does meets all of them. */
async function inTurn(contenders, measure) {
  const seen = contenders.map(([name]) => ({ name, ...Object.fromEntries(Object.keys(AMOUNTS).map((work) => [work, []])) }))
  for (let turn = 0; turn < TURNS; turn++) {
    for (const work of Object.keys(AMOUNTS)) {
      for (const [i, [, contender]] of contenders.entries()) seen[i][work].push(await measure(contender, work))
    }
  }
  return seen
}

/** × is how many times the first's it is, turn by turn. */
function rows(title, seen) {
  const [baseline] = seen
  return seen.map((it) => {
    const median = (work, figure) => quantile(it[work].map(figure), 0.5)
    const times = (work, figure) =>
      quantile(
        it[work].map((value, i) => figure(value) / figure(baseline[work][i])),
        0.5,
      ).toFixed(2)
    const both = (format) => ['send', 'receive'].map(format).join(' / ')
    const each = (work) => (value) => value.seconds / AMOUNTS[work]
    const rate = ({ seconds }) => AMOUNTS.send / MIB / seconds
    const cost = ({ cpu }) => cpu / (AMOUNTS.send / GIB)
    return {
      case: `${title}: ${it.name}`,
      'connects a second': (1 / median('connect', each('connect'))).toFixed(0),
      '× connects': times('connect', (value) => 1 / each('connect')(value)),
      'round trip, µs': (median('ping-pong', each('ping-pong')) * 1e6).toFixed(1),
      '× round trip': times('ping-pong', each('ping-pong')),
      'MiB/s to / from': both((work) => median(work, rate).toFixed(0)),
      '× MiB/s': both((work) => times(work, rate)),
      'CPU s per GiB': both((work) => median(work, cost).toFixed(2)),
      '× CPU': both((work) => times(work, cost)),
    }
  })
}

async function compareRequesters(path, start, contenders) {
  const server = await start(path)
  try {
    const seen = Object.keys(contenders).map((name) => ({ name, times: [] }))
    for (let turn = 0; turn < TURNS; turn++) {
      for (const { name, times } of seen) times.push((await contenders[name](path, REQUESTS)).seconds / REQUESTS)
    }
    return seen.map(({ name, times }) => ({
      case: `ADD_MMIO: ${name}`,
      'round trip, µs': (quantile(times, 0.5) * 1e6).toFixed(1),
      '× round trip': quantile(
        times.map((value, i) => value / seen[0].times[i]),
        0.5,
      ).toFixed(2),
    }))
  } finally {
    await server.stop()
  }
}

async function startNode(kind, path) {
  const child = fork(SERVER, [kind, path])
  const exited = once(child, 'exit')
  await Promise.race([once(child, 'message'), exited.then(() => Promise.reject(new Error(`${SERVER} ${kind}: ended`)))])
  const stop = async () => {
    child.disconnect()
    await exited
  }
  return { pid: child.pid, stop }
}

async function startProgram(program, args) {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  const lines = createInterface({ input: child.stdout })
  await Promise.race([once(lines, 'line'), exited.then(() => Promise.reject(new Error(`${program} ${args[0]}: ended`)))])
  const stop = async () => {
    child.stdin.end()
    await exited
  }
  return { pid: child.pid, stop }
}

function cpuOf(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS
}

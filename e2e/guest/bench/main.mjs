// Node against C in the guest, over AF_VSOCK loopback and over AF_UNIX. The other end is always the C program's echo.
//
// What Node itself costs is what it takes beyond C, over either family; that of an adopted socket has to be that of net.Socket.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { connect as netConnect } from 'node:net'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { connect } from '@upcall/vsock'
import { bulk, pingPong, quantile } from './measure.mjs'

const PEER = '/payload/peer'
const ROUNDS = 11

const families = {
  AF_VSOCK: { address: 'vsock:7000', dial: () => connect('vsock://local:7000') },
  AF_UNIX: {
    address: 'unix:/tmp/echo',
    async dial() {
      const socket = netConnect({ path: '/tmp/echo', allowHalfOpen: true })
      await once(socket, 'connect')
      return socket
    },
  },
}

/** `cost` turns what is measured into microseconds for one message there and back. */
const measures = {
  '1 KiB ping-pong': { command: 'ping', amount: 1_000, inNode: pingPong, cost: (microseconds) => microseconds },
  'bulk, each 64 KiB': {
    command: 'bulk',
    amount: 16 << 20,
    inNode: bulk,
    cost: (megabytesPerSecond) => 65_536 / megabytesPerSecond,
  },
}

for (const [name, measure] of Object.entries(measures)) {
  test(name, { timeout: 180_000 }, async (t) => {
    const servers = await Promise.all(Object.values(families).map(({ address }) => serve(address)))
    t.after(() => Promise.all(servers.map((end) => end())))
    const seen = { 'C AF_VSOCK': [], 'Node AF_VSOCK': [], 'C AF_UNIX': [], 'Node AF_UNIX': [] }
    // The first rounds warm up.
    for (let round = -3; round < ROUNDS; round++) {
      for (const [family, { address, dial }] of Object.entries(families)) {
        const costs = { C: await inC(measure, address), Node: await inNode(measure, dial) }
        if (round >= 0) for (const [who, cost] of Object.entries(costs)) seen[`${who} ${family}`].push(cost)
      }
    }
    const middle = (values) => quantile(values, 0.5)
    const own = {}
    for (const family of Object.keys(families)) {
      const [c, node] = [seen[`C ${family}`], seen[`Node ${family}`]]
      own[family] = node.map((cost, round) => cost - c[round])
      const times = [middle(c), middle(node), middle(own[family])].map((value) => value.toFixed(1))
      const ratio = middle(node.map((cost, round) => cost / c[round])).toFixed(2)
      t.diagnostic(`${name}, ${family}: C ${times[0]} µs, Node ${times[1]} µs (${ratio} times), Node's own ${times[2]} µs`)
    }
    const ratios = own.AF_VSOCK.map((cost, round) => cost / own.AF_UNIX[round])
    const [low, median, high] = [0.25, 0.5, 0.75].map((share) => quantile(ratios, share).toFixed(2))
    t.diagnostic(
      `${name}: Node's own, adopted AF_VSOCK over net.Socket on AF_UNIX: ${median} times (quartiles ${low} to ${high})`,
    )
  })
}

async function serve(address) {
  const server = spawn(PEER, ['serve', address], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(server.stdout, 'data')
  return async () => {
    const exited = once(server, 'exit')
    server.kill('SIGKILL')
    await exited
    await rm('/tmp/echo', { force: true })
  }
}

async function inC({ command, amount, cost }, address) {
  const { stdout } = await promisify(execFile)(PEER, [command, address, String(amount)], { timeout: 60_000 })
  return cost(Number(stdout))
}

async function inNode({ inNode, amount, cost }, dial) {
  const socket = await dial()
  try {
    return cost(await inNode(socket, amount))
  } finally {
    socket.destroy()
  }
}

// Runs in the guest: starts `upcall serve --backend linux`, is its client over AF_VSOCK loopback, and does what the host says, one JSON line
// on a virtio port after the other. Answers are JSON lines on stdout.
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { arch } from 'node:process'
import { createInterface } from 'node:readline'
import { DeviceManager, parseOperation } from '@upcall/device-manager'
import { onlineMemory } from '@upcall/device-manager/guest'
import { connect } from '@upcall/vsock'

const guestArch = { x64: 'x86_64', arm64: 'aarch64' }[arch]
const serveArguments = process.argv.slice(2)
const server = spawn(
  process.execPath,
  ['node_modules/upcall/dist/main.js', '--json', 'serve', '--backend', 'linux', '--listen', 'vsock://any:219', ...serveArguments],
  { stdio: ['ignore', 'pipe', 'inherit'] },
)
const log = []
createInterface({ input: server.stdout }).on('line', (line) => {
  console.error(`serve: ${line}`)
  log.push(JSON.parse(line))
})
server.once('exit', (status) => fail(new Error(`upcall serve ended with ${status}`)))

const manager = new DeviceManager({
  arch: guestArch,
  dial: ({ signal }) => connect('vsock://local:219', { signal }),
})
const actions = {
  ready: () => manager.ready({ timeoutMs: 20_000 }).then(() => ({ log })),
  // Without the checks of DeviceManager, so that each refusal is the guest's own.
  request: async ({ operation }) => {
    const started = performance.now()
    const { result, apicIdIndex, cpuId } = await manager.client.request(parseOperation(operation, guestArch))
    return { result, apicIdIndex, cpuId, ms: performance.now() - started }
  },
  read: async ({ path }) => ({ text: (await readFile(path, 'utf8')).trim() }),
  list: async ({ path }) => ({ names: (await readdir(path)).sort() }),
  write: async ({ path, text }) => writeFile(path, text),
  run: async ({ argv: [program, ...args] }) => ({ output: String(execFileSync(program, args)) }),
  sha256: async ({ path }) => ({ digest: await sha256(path) }),
  memory: async ({ bytes }) => {
    const { onlined, refused, blockSize, online } = await onlineMemory({ bytes: BigInt(bytes) })
    return { onlined, refused, blockSize: Number(blockSize), online: Number(online) }
  },
  exit: async () => {
    setImmediate(() => process.exit(0))
    return {}
  },
}

for await (const line of createInterface({ input: createReadStream('/dev/virtio-ports/org.upcall.driver') })) {
  const { id, action, ...rest } = JSON.parse(line)
  try {
    tell({ id, ...(await actions[action](rest)) })
  } catch (error) {
    const { name, code, outcome, errno, message } = error
    tell({ id, error: { name, code, outcome, errno, message } })
  }
}

async function sha256(path) {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk)
  return hash.digest('hex')
}

function tell(value) {
  console.log(JSON.stringify(value))
}

function fail(error) {
  console.error(error)
  process.exit(1)
}

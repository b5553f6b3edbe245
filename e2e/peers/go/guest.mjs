// The host's side of guest/peers-go: a guest on our device, the services that it dials, and `forward` from the guest to the guest.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, listen } from '@upcall/vsock'
import { exercises, readAll, serve } from '../../guest/peers-go/streams.mjs'
import { runGuestTests } from '../../guest-tests.mjs'
import { serveDevice } from '../../vhost-user/scene.mjs'
import { dialWith, ends, startForward } from './run.mjs'

const GUEST_CID = 42
const [SERVICES, CONTROL] = [6000, 6001]
const HALF = { halfClose: true, allowHalfOpen: true }

export async function run(checks, image, { peer, testConn, vsockTests }, { small = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-peers-'))
  const [socketPath, hybridPath] = [join(folder, 'vhost'), join(folder, 'vsock')]
  const closers = []
  try {
    const device = await serveDevice({ socketPath, guestCid: GUEST_CID, hybridPath })
    closers.push(() => device.close())
    const forwards = {}
    for (const [halfClose, ports] of Object.entries({ on: [7000, 7001], off: [7002, 7003] })) {
      const flag = halfClose === 'on' ? '--half-close' : '--no-half-close'
      const forward = await startForward(flag, ...ports.map((port) => `hvsock://${hybridPath}:${port}`))
      closers.unshift(() => forward.stop())
      forwards[halfClose] = forward
    }
    closers.unshift(...(await startServices({ peer, hybridPath, forwards, small })))
    await runGuestTests(checks, {
      ...{ name: 'peers-go', image, program: 'main.mjs', timeoutMs: 400_000 },
      payload: {
        programs: ['guest/peers-go', 'guest/vsock/support.mjs', 'guest/go-tests.mjs', peer, testConn, vsockTests],
        packages: ['@upcall/vsock'],
      },
      boot: {
        ...{ machine: 'q35', sharedMemory: true, cpus: 1 },
        chardevs: [`socket,id=vsock,path=${socketPath}`],
        devices: ['vhost-user-vsock-pci,chardev=vsock'],
      },
    })
  } finally {
    for (const close of closers) await close()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** What the guest dials. Gives what closes it. */
async function startServices({ peer, hybridPath, forwards, small }) {
  const served = []
  const services = await listen(`hvsock://${hybridPath}:${SERVICES}`, { ...HALF, maxPending: 1024 })
  services.on('connection', (socket) => {
    const done = serve(socket.on('error', () => {}))
    // A check that waits for it finds its failure.
    done.catch(() => {})
    served.push(done)
  })
  const commands = {
    served: () => served.shift(),
    async dial({ port, exercises: wanted }) {
      const dial = () => connect(`hvsock://${hybridPath}:${port}`, { ...HALF, timeoutMs: 20_000 })
      for (const [name, amount] of Object.entries(wanted)) await exercises[name](dial, amount)
    },
    sdk: ({ port, exercise, amount }) => dialWith(peer, `hvsock:${hybridPath}:${port}`, exercise, amount),
    options: () => ({ small }),
    ends: ({ halfClose, count }) => ends(forwards[halfClose], count),
  }
  const control = await listen(`hvsock://${hybridPath}:${CONTROL}`, HALF)
  control.on(
    'connection',
    (socket) =>
      void obey(
        socket.on('error', () => {}),
        commands,
      ),
  )
  return [() => services.close(), () => control.close()]
}

async function obey(socket, commands) {
  let answer
  try {
    const { run, ...options } = JSON.parse(await readAll(socket))
    answer = { value: (await commands[run](options)) ?? null }
  } catch (error) {
    answer = { error: error.stack }
  }
  socket.end(JSON.stringify(answer))
}

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DeviceManager } from '@upcall/device-manager'
import { deviceManagerGuest, simulatedGuest } from '@upcall/device-manager/guest'
import { UpcallServer } from '@upcall/server'
import { connect, listen } from '@upcall/vsock'

const ROUNDS = 2_000

/** A request through everything, against 1024 bytes that are only echoed over the same kind of socket. */
export async function bench() {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-bench-'))
  const echo = (await listen(`unix:${folder}/echo`)).on('connection', (socket) => socket.on('error', () => {}).pipe(socket))
  const server = new UpcallServer({ services: [deviceManagerGuest(simulatedGuest({ arch: 'x86_64' }))] })
  const guest = (await listen(`unix:${folder}/guest`)).on('connection', (socket) => server.accept(socket))
  const manager = new DeviceManager({ arch: 'x86_64', dial: ({ signal }) => connect(`unix:${folder}/guest`, { signal }) })
  try {
    const socket = await connect(`unix:${folder}/echo`)
    const message = Buffer.alloc(1024)
    const raw = await perRound(async () => {
      socket.write(message)
      for (let got = 0; got < 1024; ) {
        const chunk = socket.read()
        if (chunk === null) await once(socket, 'readable')
        else got += chunk.length
      }
    })
    socket.destroy()

    await manager.ready({ timeoutMs: 5_000 })
    const window = { base: 0xd000_0000n, size: 0x1000n, irq: 5 }
    let add = false
    const request = await perRound(() => {
      add = !add
      return add ? manager.addMmio(window) : manager.removeMmio(window)
    })
    return [
      { case: '1 KiB echo over a Unix socket (baseline)', µs: raw.toFixed(0), ratio: '1.00' },
      { case: 'addMmio / removeMmio on a simulated guest', µs: request.toFixed(0), ratio: (request / raw).toFixed(2) },
    ]
  } finally {
    await manager.close()
    await server.close()
    await guest.close()
    await echo.close()
    rmSync(folder, { recursive: true })
  }
}

async function perRound(fn) {
  for (let i = 0; i < ROUNDS / 10; i++) await fn()
  const start = performance.now()
  for (let i = 0; i < ROUNDS; i++) await fn()
  return ((performance.now() - start) / ROUNDS) * 1000
}

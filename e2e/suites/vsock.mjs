// AF_VSOCK in a real kernel, which is the one place where it is connected: over loopback (CID 1), and towards a VMM that never answers.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildFrontEnd } from '../device/front-end.mjs'
import { runGuestTests } from '../guest-tests.mjs'
import { silentDevice } from '../silent-device.mjs'

const packages = ['@upcall/vsock', '@upcall/testkit', '@upcall/device-manager', 'undici', 'upcall', 'ws']
const payload = { programs: ['guest/vsock', '../tests/parity'], packages }

/** `small`: fewer connections and bytes at once, for all suites together. */
export async function run(checks, image, { small = false } = {}) {
  // There is no vsock device: loopback is the one transport that leads anywhere. VMware's carries datagrams here, and nothing else.
  const vmware = image.arch === 'x86_64' ? ['vmw_vsock_vmci_transport'] : []
  const boot = { modules: ['vsock_loopback', 'vmw_vsock_virtio_transport', ...vmware] }
  const frontEnd = mkdtempSync(join(tmpdir(), 'upcall-front-end-'))
  try {
    await buildFrontEnd(frontEnd)
    const programs = [...payload.programs, frontEnd]
    const run = { image, payload: { ...payload, programs }, program: 'loopback.mjs', timeoutMs: 900_000, boot }
    await runGuestTests(checks, { name: 'loopback', ...run, args: small ? ['--small'] : [] })
  } finally {
    rmSync(frontEnd, { recursive: true, force: true })
  }

  const device = await silentDevice(7)
  try {
    const boot = device.boot
    await runGuestTests(checks, { name: 'silent', image, payload, program: 'silent.mjs', timeoutMs: 300_000, boot })
  } finally {
    device.close()
  }
}

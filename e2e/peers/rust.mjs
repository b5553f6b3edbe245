// Rust: dbs-upcall as the client of `upcall serve`, vhost-device-vsock as the device of a QEMU guest, and the crates vsock and
// tokio-vsock in a guest.
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PeerGuest, playAll } from './guest.mjs'
import * as dbsUpcall from './rust/dbs-upcall.mjs'
import * as vhostDeviceVsock from './rust/vhost-device-vsock.mjs'
import { built, runTool } from './tools.mjs'

export const tools = ['cargo', 'cc']

const SOURCE = fileURLToPath(new URL('rust/guest-peer', import.meta.url))
const TARGET = 'x86_64-unknown-linux-gnu'

export async function run(checks, image, { small }) {
  await dbsUpcall.run(checks, { small })
  const peer = await checks.check('vsock, tokio-vsock: a program is built, or found in the cache', () => buildPeer())
  if (peer === undefined) return
  await crates(checks, image, { peer, small })
  await vhostDeviceVsock.run(checks, image, { small, peer, command: ['./guest-peer', 'vsock'] })
}

async function crates(checks, image, { peer, small }) {
  const guest = await checks.check('vsock, tokio-vsock: a guest boots', () =>
    PeerGuest.start({ image, name: 'peers-rust', programs: [peer] }),
  )
  if (guest === undefined) return
  try {
    for (const crate of ['vsock', 'tokio-vsock']) {
      const command = ['./guest-peer', crate]
      await playAll(checks, guest, { name: crate, command, places: ['loopback', 'host'], small })
    }
  } finally {
    await guest.close()
  }
}

/** What `run` needs, to be built before it. */
export async function programs() {
  return [...(await dbsUpcall.programs()), buildPeer, vhostDeviceVsock.installDevice]
}

/** Linked statically, so that its C library need not be the guest's. */
async function buildPeer() {
  const RUSTFLAGS = '-C target-feature=+crt-static'
  const output = await built({
    ...{ name: 'guest-peer', sources: [SOURCE], tool: 'cargo', salt: RUSTFLAGS },
    async build({ output, work }) {
      // With a target named, the flags are not for what runs while it builds.
      const args = ['build', '--locked', '--target', TARGET, '--target-dir', work]
      await runTool('cargo', args, { cwd: SOURCE, env: { RUSTFLAGS } })
      copyFileSync(join(work, TARGET, 'debug/guest-peer'), join(output, 'guest-peer'))
    },
  })
  return join(output, 'guest-peer')
}

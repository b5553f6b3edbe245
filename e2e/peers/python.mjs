// Python's socket.AF_VSOCK in a guest, as one end of each connection; ours is the other.
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { guestImage } from '../image.mjs'
import { PeerGuest, playAll } from './guest.mjs'
import { CACHE } from './tools.mjs'

export const tools = []

const PROGRAM = fileURLToPath(new URL('python/peer.py', import.meta.url))

export async function run(checks, _image, { small }) {
  // An image of its own: the other suites have no use for Python.
  const image = await checks.check("python: a guest image with Debian's Python is made, or found in the cache", () =>
    guestImage({ cacheDir: join(CACHE, 'guest'), packages: ['python3-minimal'] }),
  )
  if (image === undefined) return
  const guest = await checks.check('python: a guest boots', () =>
    PeerGuest.start({ image, name: 'peers-python', programs: [PROGRAM] }),
  )
  if (guest === undefined) return
  const places = small ? ['host'] : ['loopback', 'host']
  try {
    await playAll(checks, guest, { name: 'python', command: ['python3', 'peer.py'], places, small })
  } finally {
    await guest.close()
  }
}

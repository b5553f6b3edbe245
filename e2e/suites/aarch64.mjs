// draft
import { addons, buildFor, foreignNode, targets } from '../../scripts/build-addons.mjs'
import { runGuestTests } from '../guest-tests.mjs'
import { guestImage } from '../image.mjs'

const arm64 = targets.find(({ arch }) => arch === 'arm64')
const packages = ['@upcall/vsock', '@upcall/testkit', '@upcall/device-manager', 'undici', 'upcall']
const payload = { programs: ['guest/vsock'], packages, prebuilt: true }

export async function run(checks) {
  const image = await checks.check('an aarch64 image', async () => {
    for (const addon of addons) buildFor(addon, arm64)
    return guestImage({ arch: 'aarch64', node: foreignNode(arm64) })
  })
  if (!image) return
  await runGuestTests(checks, { name: 'aarch64', image, payload, program: 'without-load.mjs', deadlineMs: 900_000 })
}

// Hours of traffic through the vhost-user device, in three guests: one emulated without memory barriers (QEMU before 8.1, one vCPU and no room
// for a second), a newer kernel, and another architecture. `npm run e2e -- soak --minutes 60` is an hour with each; without, it is a look.
import { aarch64Image, guestImage } from '../image.mjs'
import { missingForAarch64 } from '../tools.mjs'
import { Soak } from '../vhost-user/soak.mjs'

const guests = {
  6.1: { what: 'x86_64, 6.1, one vCPU and no barriers', image: () => guestImage(), maxCpus: 1 },
  6.12: { what: 'x86_64, 6.12', image: () => guestImage({ kernel: '6.12' }) },
  aarch64: { what: 'aarch64, 6.1', image: () => aarch64Image(), lacks: missingForAarch64 },
}

const [FIRST] = Object.keys(guests)

/** `small`: only the first guest, with which most was lost, for all suites together. */
export async function run(checks, _image, { small = false, minutes = 0.7, guest } = {}) {
  if (guest !== undefined && !Object.hasOwn(guests, guest))
    throw new Error(`--guest is ${JSON.stringify(guest)}; there are ${Object.keys(guests).join(', ')}`)
  for (const [name, { what, image: make, maxCpus, lacks }] of Object.entries(guests)) {
    if (guest !== undefined && guest !== name) continue
    if (small && name !== FIRST) {
      console.log(`# ${name} is left out: npm run e2e -- soak --guest ${name}`)
      continue
    }
    const reason = lacks?.()
    if (reason) {
      console.log(`# ${name} is left out: ${reason}`)
      continue
    }
    await checks.check(`${what}: ${minutes} minutes of traffic, no silence of six seconds, every byte right`, async () => {
      const image = await make()
      const soak = new Soak({ image, minutes, maxCpus })
      console.log(`# ${name}, kernel ${image.release}: ${await soak.run()}`)
    })
  }
}

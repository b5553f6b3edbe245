// Boots real guests under QEMU and runs the project in them, by software emulation alone. Prints TAP.
//
//   npm run e2e                       every suite that this machine has the tools for, but bench
//   npm run e2e -- vsock bench        these
//   npm run e2e -- shim --docs        the same, and its table goes into docs/real-guest.md
//   npm run e2e -- vhost-user --kernel 6.12  with one of Debian's kernels; vhost-user alone: with each of them
//   npm run e2e -- soak --minutes 60  an hour of traffic with each of its guests; --guest 6.12 for one of them
//   npm run e2e -- peers --part go    programs that others wrote, those in Go alone; peers without a name is shorter
//   npm run e2e -- page --docs        the page of vmm-shim in a browser, without a guest under QEMU; its pictures go into docs
//   npm run e2e -- kernel-vsock-test  the kernel's own tests between guests, both ways, and its vsock_perf (--part perf)
//   npm run e2e -- --json=<file>      writes the sum there: { numPassedTests, numFailedTests }
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { startAhead } from './ahead.mjs'
import { Checks } from './checks.mjs'
import { aarch64Image, guestImage, kernels } from './image.mjs'
import { missing, missingBrowser, missingForAarch64 } from './tools.mjs'

/**
 * Each exports `run(checks, image)`. `always` says whether it runs when no suite is named. A suite that `lacks` something is left out
 * then, with the reason. `image: false`: it boots no guest, and runs where QEMU is missing, too. `ahead`: a program that prepares it
 * while the suites before it run.
 */
const suites = {
  smoke: { load: () => import('./suites/smoke.mjs'), always: true },
  vsock: { load: () => import('./suites/vsock.mjs'), always: true },
  'vhost-user': { load: () => import('./suites/vhost-user.mjs'), always: true },
  device: { load: () => import('./suites/device.mjs'), always: true },
  'kernel-vsock-test': { load: () => import('./suites/kernel-vsock-test.mjs'), always: true },
  'linux-guest': { load: () => import('./suites/linux-guest.mjs'), always: true },
  shim: { load: () => import('./suites/shim.mjs'), always: true },
  vmm: { load: () => import('./suites/vmm.mjs'), always: true },
  aarch64: { load: () => import('./suites/aarch64.mjs'), always: true, image: aarch64Image, lacks: missingForAarch64 },
  peers: { load: () => import('./suites/peers.mjs'), always: true, ahead: './peers/ahead.mjs' },
  notify: { load: () => import('./suites/notify.mjs'), always: true },
  soak: { load: () => import('./suites/soak.mjs'), always: true },
  page: { load: () => import('./suites/page.mjs'), always: true, image: false, lacks: missingBrowser },
  bench: { load: () => import('./suites/bench.mjs'), always: false },
}

const { json, docs, minutes, guest, kernel, part, named } = readArguments()
const needsGuests = named.length === 0 || named.some((name) => suites[name].image !== false)
const lacking = (needsGuests ? missing() : undefined) ?? named.map((name) => suites[name].lacks?.()).find(Boolean)
if (lacking) {
  console.error(`e2e: ${lacking}`)
  process.exit(1)
}

function readArguments() {
  const options = {
    json: { type: 'string' },
    docs: { type: 'boolean', default: false },
    minutes: { type: 'string' },
    guest: { type: 'string' },
    kernel: { type: 'string' },
    part: { type: 'string' },
  }
  try {
    const { values, positionals: named } = parseArgs({ options, allowPositionals: true })
    const unknown = named.find((name) => !Object.hasOwn(suites, name))
    if (unknown !== undefined)
      throw new Error(`unknown suite ${JSON.stringify(unknown)}; there are ${Object.keys(suites).join(', ')}`)
    const minutes = values.minutes === undefined ? undefined : Number(values.minutes)
    if (minutes !== undefined && !(minutes > 0 && minutes <= 24 * 60))
      throw new Error(`--minutes is ${JSON.stringify(values.minutes)}; a number above 0, and at most 1440, is allowed`)
    if (values.kernel !== undefined && !Object.hasOwn(kernels, values.kernel))
      throw new Error(`--kernel is ${JSON.stringify(values.kernel)}; there are ${Object.keys(kernels).join(', ')}`)
    return { ...values, minutes, named }
  } catch (error) {
    console.error(`e2e: ${error.message}`)
    process.exit(2)
  }
}

const checks = new Checks()
const images = new Map()
const wanted = Object.entries(suites).filter(([name, { always }]) => (named.length > 0 ? named.includes(name) : always))
/** With all suites: a suite that was named begins at once. */
const prepared = new Map(
  wanted
    .filter(([, { ahead, lacks }]) => ahead && named.length === 0 && !lacks?.())
    .map(([name, { ahead }]) => [name, startAhead(fileURLToPath(new URL(ahead, import.meta.url)))]),
)
for (const [name, { load, image: make = guestImage, lacks }] of wanted) {
  const reason = lacks?.()
  if (reason) {
    console.log(`\n# ${name} is left out: ${reason}`)
    continue
  }
  checks.begin(name)
  if (make !== false && !images.has(make)) {
    images.set(make, await checks.check('a guest image is made, or found in the cache', () => make()))
  }
  const image = images.get(make)
  if (make !== false && image === undefined) continue
  await prepared.get(name)?.done
  const { run } = await load()
  await run(checks, image, { docs, minutes, guest, kernel, part, small: named.length === 0 })
}
checks.finish(json)

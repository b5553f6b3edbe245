// A real guest behind the Unix socket: QEMU's vhost-user-vsock device in this process, the guest's stock driver at the other end.
// Every byte is checked by its receiver; the table at the end says what came of each exercise.
import { consoleLog } from '../guest-tests.mjs'
import { guestImage, kernels } from '../image.mjs'
import * as data from '../vhost-user/data.mjs'
import { exercise } from '../vhost-user/exercise.mjs'
import * as life from '../vhost-user/life.mjs'
import { messages, smallMessages } from '../vhost-user/messages.mjs'
import { readmeProgram } from '../vhost-user/readme.mjs'
import { descriptors, MIB, Scene, settled } from '../vhost-user/scene.mjs'

const STREAMS = 12
/** In full, and in the small form. */
const GIB_EACH_WAY = [1, 0.25]
const CONNECTS = [2000, 400]

export async function run(checks, _image, { kernel, small = false } = {}) {
  const table = []
  for (const name of kernel === undefined ? Object.keys(kernels) : [kernel]) {
    const image = await checks.check(`an image with kernel ${name}`, () => guestImage({ kernel: name }))
    if (image === undefined) continue
    const scene = new Scene(image, { log: consoleLog(`vhost-user-${name}`) })
    const isFirst = name === Object.keys(kernels)[0]
    const all = small && !isFirst ? newerKernel : exercises
    try {
      await all(scene, (title, what, body) => exercise(checks, table, { kernel: name, name: title, what, body }), small)
    } finally {
      await scene.close()
    }
  }
  console.table(table)
}

/** What newer kernels do otherwise: how many packets they let wait, and how they send what does not fit into one. */
async function newerKernel(scene, exercise) {
  await scene.startServices()
  await scene.startDevice()
  if (!(await exercise('boot', 'q35, stock Debian kernel, one vCPU, tcg', () => scene.boot()))) return
  const everything = () => data.everything(scene, { bytes: 128 * MIB, streams: STREAMS })
  await exercise('128 MiB each way', `${STREAMS} streams, begun by either end, both ways at once`, everything)
  await exercise('half-close', 'either end first, from either end', () => data.halfClose(scene))
  await exercise('buffers of the guest', '1 MiB each way, one after the other', () => data.guestBuffers(scene, MIB))
  await exercise('small writes', '400 KB to a guest that does not read', () => data.smallWrites(scene, 400_000, 200))
  await exercise('slow guest', '4 MiB to a guest that does not read', () => data.slowGuest(scene, 4 * MIB))
  await exercise('slow host', '4 MiB to a host that does not read', () => data.slowHost(scene, 4 * MIB))
  await exercise('messages', 'SOCK_SEQPACKET, begun by either end', () => messages(scene))
  await exercise('small messages', 'SOCK_SEQPACKET, to a guest that does not read', () => smallMessages(scene, 1))
}

async function exercises(scene, exercise, small) {
  const [gib, connects] = [GIB_EACH_WAY, CONNECTS].map((forms) => forms[Number(small)])
  await scene.startServices()
  await scene.startDevice()
  const idle = descriptors()
  const boot = () => scene.boot()
  if (!(await exercise('boot', 'q35, stock Debian kernel, one vCPU, tcg', boot))) return
  const everything = () => data.everything(scene, { bytes: gib * 1024 * MIB, streams: STREAMS })
  await exercise(`${gib} GiB each way`, `${STREAMS} streams, begun by either end, both ways at once`, everything)
  const all = () => data.manyConnections(scene, connects)
  await exercise('connects and closes', `${connects}, half of them from either end`, all)
  await exercise('half-close', 'either end first, from either end', () => data.halfClose(scene))
  await exercise('buffers of the guest', '1 MiB each way, one after the other', () => data.guestBuffers(scene, MIB))
  await exercise('small writes', '400 KB to a guest that does not read', () => data.smallWrites(scene, 400_000, 200))
  const closing = () => data.closingDialer(scene, { bytes: 150_000, times: 5 })
  await exercise('closing dialer', '150,000 bytes and gone, to a guest that counts them', closing)
  const halfDeaf = () => data.halfDeafGuest(scene, { seconds: 12 })
  await exercise('half-deaf guest', 'shutdown(SHUT_RD), then 12 s of bytes from it', halfDeaf)
  await exercise('slow guest', '4 MiB to a guest that does not read', () => data.slowGuest(scene, 4 * MIB))
  await exercise('slow host', '4 MiB to a host that does not read', () => data.slowHost(scene, 4 * MIB))
  await exercise('messages', 'SOCK_SEQPACKET, begun by either end', () => messages(scene))
  await exercise('small messages', 'SOCK_SEQPACKET, to a guest that does not read', () => smallMessages(scene, 1))
  await exercise('foreign clients', "CONNECT, to the guest's socat", () => data.foreignClients(scene))
  await exercise('stop and cont', '5 times under traffic', () => life.stopAndCont(scene, 5))
  const added = '10 DIMMs under traffic: ADD_MEM_REG on running rings, more than 8 regions'
  await exercise('memory hotplug', added, () => life.hotplug(scene, 10))
  const removed = '4 of them, under traffic: REM_MEM_REG on running rings'
  await exercise('memory unplug', removed, () => life.unplug(scene, [6, 7, 8, 9]))
  await exercise('guest reset', 'system_reset under traffic', () => life.guestReset(scene))
  await exercise('guest reset, told', 'the same, and resetConnections()', () => life.ownerReset(scene))
  await exercise('QEMU killed', 'SIGKILL under traffic', () => life.qemuKilled(scene))
  await exercise('descriptors', 'of this process, the guest gone', async () => {
    await settled(idle)
    return `${idle} before and after`
  })

  await exercise('a second VM', 'on the same device', boot)
  await exercise('its connections', '32 MiB each way', () => scene.traffic(2, 16 * MIB).done())
  await scene.vm.close()
  await scene.stopDevice()

  await scene.startDevice({ bufferBytes: 4 * MIB })
  await exercise('boot', 'a device with a buffer of 4 MiB', boot)
  await exercise('buffers of the guest', "the same, all smaller than the device's", () => data.guestBuffers(scene, MIB))
  await scene.vm.close()
  await scene.stopDevice()

  const backEnd = new life.BackEnd(scene)
  try {
    await backEnd.start()
    await exercise('boot', 'the back end in a process of its own', boot)
    await exercise('back end killed', 'SIGKILL under traffic', () => backEnd.killedUnderTraffic())
    const back = () => backEnd.broughtBack()
    await exercise('back end brought back', 'device_del, chardev-remove, chardev-add, device_add', back)
    await exercise('descriptors', 'of the new back end', () => backEnd.descriptorsKept())
    await scene.vm.close()
  } finally {
    await backEnd.kill()
  }
  await exercise("the README's program", 'from nothing to CONNECT 5000', () => readmeProgram(scene))
}

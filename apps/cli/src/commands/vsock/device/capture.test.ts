import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect } from '@upcall/vsock'
import { describe, expect, test } from 'vitest'
import { Op } from '../../../../../../packages/vhost-user/src/machine/packet.js'
import { FakeFrontEnd } from '../../../../../../packages/vhost-user/testing/fake-front-end.js'
import { binding, cleanups, folder, heard, path, say } from '../../../../../../packages/vhost-user/testing/scene.js'
import { startDeviceProgram } from '../../../../testing/device-program.js'
import { upcall } from '../../../../testing/harness.js'

const noTshark = spawnSync('tshark', ['--version']).error !== undefined
if (noTshark) console.log('the test of --pcap reads the file with tshark: apt-get install tshark')

/** `upcall vsock device --pcap` as a program of its own. */
async function capturing() {
  const pcap = `${folder}/a.pcap`
  const vm = `--vm=guest-cid=3,socket=${path},uds-path=${folder}/3.vsock`
  return { ...(await startDeviceProgram([vm, '--pcap', pcap])), pcap }
}

describe.runIf(binding !== undefined)('upcall vsock device --pcap', () => {
  test('SIGINT leaves a whole file, with what passed between the guest and the host', async () => {
    const { child, ended, pcap } = await capturing()
    const vmm = new FakeFrontEnd(binding!, path, 3)
    cleanups.push(() => vmm.close())
    await vmm.negotiate()
    vmm.guest.supply(60)
    await vmm.start()
    const connecting = connect(`hvsock://${folder}/3.vsock:5000`)
    const [request] = await heard(vmm)
    say(vmm, request!, Op.RESPONSE)
    const socket = await connecting
    cleanups.push(() => socket.on('error', () => {}).destroy())
    socket.write('seven..')
    await heard(vmm)
    say(vmm, request!, Op.RW, {}, Buffer.from('five.'))
    await once(socket, 'data')
    child.kill('SIGINT')
    expect(await ended).toEqual([130, null])

    const decoded = await upcall(['--json', 'decode', '--port', '5000', pcap])
    expect([decoded.status, decoded.stderr.text]).toEqual([0, ''])
    const packets = decoded.stdout.json.filter(({ event }) => event === 'connect' || event === 'data')
    expect(packets.map(({ event, direction, hex }) => [event, direction, hex && String(Buffer.from(hex, 'hex'))])).toEqual([
      ['connect', 'to-guest', undefined],
      ['connect', 'to-host', undefined],
      ['data', 'to-guest', 'seven..'],
      ['data', 'to-host', 'five.'],
    ])
    if (noTshark && process.env.CI === undefined) return
    const fields = ['vsock.src_cid', 'vsock.op', 'vsock.virtio.op'].flatMap((field) => ['-e', field])
    const argv = ['-r', pcap, '-T', 'fields', '-E', 'separator=/s', ...fields]
    const { stdout, status } = spawnSync('tshark', argv, { encoding: 'utf8', timeout: 60_000 })
    // Its CID, the operation of vsockmon and that of virtio.
    expect([status, stdout.split('\n').map((line) => line.trim())]).toEqual([
      0,
      expect.arrayContaining(['2 1 1', '3 1 2', '2 4 5', '3 4 5']),
    ])
  })
})

test('a file that cannot be written is told before anything is served', async () => {
  const args = ['vsock', 'device', `--socket=${path}`, `--uds-path=${folder}/3.vsock`, '--pcap', `${folder}/none/a.pcap`]
  const { status, stdout, stderr } = await upcall(args)
  expect([status, stdout.text]).toEqual([2, ''])
  expect(stderr.lines).toEqual([expect.stringMatching(/--pcap: .*none\/a\.pcap: cannot be written: ENOENT/)])
  expect([existsSync(path), existsSync(`${folder}/3.vsock`)]).toEqual([false, false])
})

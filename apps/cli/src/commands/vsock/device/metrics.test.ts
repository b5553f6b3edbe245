import { once } from 'node:events'
import { connect } from '@upcall/vsock'
import { describe, expect, test } from 'vitest'
import { hasPromtool, promtoolSays } from '../../../../../../packages/metrics/testing/promtool.js'
import { samplesOf } from '../../../../../../packages/metrics/testing/samples.js'
import { Op } from '../../../../../../packages/vhost-user/src/machine/packet.js'
import { FakeFrontEnd } from '../../../../../../packages/vhost-user/testing/fake-front-end.js'
import { binding, cleanups, folder, heard, say } from '../../../../../../packages/vhost-user/testing/scene.js'
import { startDeviceProgram } from '../../../../testing/device-program.js'
import { upcall } from '../../../../testing/harness.js'

/** `upcall vsock device --metrics` as a program of its own, with two guests. */
async function serving() {
  const vm = (cid: number, more = '') => [
    '--vm',
    `guest-cid=${cid},socket=${folder}/${cid},uds-path=${folder}/${cid}.vsock${more}`,
  ]
  const args = [...vm(3, ',to-guest-allow=host:5000'), ...vm(4), '--metrics', '0']
  const { child, ended, first } = await startDeviceProgram(args, 2)
  const { url } = JSON.parse(first) as { url: string }
  expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/)
  return { child, ended, url, scrape: async () => (await fetch(url)).text() }
}

describe.runIf(binding !== undefined)('upcall vsock device --metrics', () => {
  test('counts the packets of each guest to the last one, and what was refused, until the program ends', async () => {
    const { child, ended, url, scrape } = await serving()
    const vmm = new FakeFrontEnd(binding!, `${folder}/3`, 3)
    cleanups.push(() => vmm.close())
    await vmm.negotiate()
    vmm.guest.supply(60)
    await vmm.start()
    const connecting = connect(`hvsock://${folder}/3.vsock:5000`)
    const [request] = await heard(vmm)
    say(vmm, request!, Op.RESPONSE)
    const socket = await connecting
    cleanups.push(() => socket.destroy())
    socket.write('seven..')
    await heard(vmm)
    say(vmm, request!, Op.RW, {}, Buffer.from('five.'))
    await once(socket, 'data')
    // The device tells that there is room again.
    expect((await heard(vmm)).map(({ header }) => header.op)).toEqual([Op.CREDIT_UPDATE])
    await expect(connect(`hvsock://${folder}/3.vsock:6000`)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    const text = await scrape()
    const samples = samplesOf(text)
    expect(samples.of('vsock_device_packets_total')).toEqual({
      'cid=3,direction=from-guest': 2,
      'cid=3,direction=to-guest': 3,
      'cid=4,direction=from-guest': 0,
      'cid=4,direction=to-guest': 0,
    })
    expect(samples.of('vsock_device_bytes_total')).toMatchObject({
      'cid=3,direction=from-guest': 5,
      'cid=3,direction=to-guest': 7,
    })
    expect(samples.of('vsock_device_connections_total')).toMatchObject({
      'cid=3,direction=to-guest': 1,
      'cid=4,direction=to-guest': 0,
    })
    expect(samples.of('vsock_device_open_connections')).toEqual({ 'cid=3': 1, 'cid=4': 0 })
    expect(samples.of('vsock_device_refusals_total')).toEqual({ 'cid=3,reason=policy-port': 1 })
    expect(samples.of('vsock_handshake_failures_total')).toEqual({ 'reason=route-failed': 1 })
    expect(samples.of('vsock_device_state')).toMatchObject({ 'cid=3,state=running': 1, 'cid=4,state=waiting': 1 })
    expect(samples.of('vsock_device_credit_stalls_total')).toEqual({ 'cid=3': 0, 'cid=4': 0 })
    if (hasPromtool) expect(promtoolSays(text)).toEqual([])
    child.kill('SIGTERM')
    expect(await ended).toEqual([0, null])
    await expect(fetch(url)).rejects.toThrow()
  })
})

test('an address that means nothing is wrong usage', async () => {
  const { status, stderr } = await upcall(['vsock', 'device', '--socket=/s', '--uds-path=/u', '--metrics', 'x:y'])
  expect([status, stderr.lines]).toEqual([
    2,
    [
      expect.stringMatching(
        /--metrics: address: must be a port, <host>:<port> or \[<IPv6 address>\]:<port>, got "x:y"\. Ports go from 0/,
      ),
    ],
  ])
})

import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { describe, expect, test } from 'vitest'
import type { FakeFrontEnd } from '../testing/fake-front-end.js'
import { opName } from '../testing/fake-guest.js'
import { binding, cleanups, connected, folder, frontEnd, heard, running, say } from '../testing/scene.js'
import type { Refusal } from './hub.js'
import { Op } from './machine/packet.js'
import { createVsockNetwork } from './network.js'
import type { VsockPolicy } from './policy-options.js'

const ask = (vmm: FakeFrontEnd, destinationPort: number, fields = {}) => {
  vmm.guest.send({ op: Op.REQUEST, sourcePort: 1000, destinationPort, ...fields })
  vmm.kick(1)
}

/** Reads all that comes; the function says how much that was. */
function counted(stream: Readable): () => number {
  let bytes = 0
  stream.on('data', (chunk: Buffer) => {
    bytes += chunk.length
  })
  return () => bytes
}

describe.runIf(binding !== undefined)('the policy of a device', () => {
  test('a port of the host that the guest may not reach: a reset at once, an event, and no call of the handler', async () => {
    const called: number[] = []
    const { device, vmm } = await running({
      policy: { fromGuest: { allow: [{ peer: 'host', ports: [[80, 90]] }] } },
      onConnection: (port, { accept }) => {
        called.push(port)
        accept().on('error', () => {})
        return undefined
      },
    })
    const refusals: Refusal[] = []
    device.on('refused', (refusal) => refusals.push(refusal))
    ask(vmm, 22)
    expect((await heard(vmm)).map(opName)).toEqual(['RST'])
    expect([called, refusals]).toEqual([
      [],
      [{ from: { cid: 42, port: 1000 }, to: { cid: 2, port: 22 }, type: 'stream', reason: 'policy-port' }],
    ])
    ask(vmm, 85)
    expect((await heard(vmm)).map(opName)).toEqual(['RESPONSE'])
    expect(called).toEqual([85])
  })

  test('the host, too, is refused, with a reason that says whether waiting helps', async () => {
    const clock = new ManualClock()
    const limits = { allow: [{ peer: 'host' as const, ports: [5000] }], maxConnections: 1, connectionRate: { perSecond: 1 } }
    const { device, vmm } = await running({ policy: { toGuest: limits }, clock })
    const reasons: string[] = []
    device.on('refused', ({ from, reason }) => reasons.push(`${from.cid}:${from.port} ${reason}`))
    await expect(device.connect(22)).rejects.toMatchObject({ code: 'EACCES', retryable: false, subject: 'guest 42 port 22' })
    const { stream, request } = await connected(device, vmm)
    await expect(device.connect(5000)).rejects.toMatchObject({ code: 'EAGAIN', retryable: true })
    say(vmm, request, Op.RST)
    stream.destroy()
    await expect.poll(() => device.connections, { timeout: 10_000 }).toBe(0)
    await expect(device.connect(5000)).rejects.toThrow(
      'connect guest 42 port 5000: its policy allows no more connections a second. Try again later',
    )
    await clock.advance(1000)
    await connected(device, vmm)
    expect(reasons).toEqual(['2:0 policy-port', '2:0 policy-connections', '2:0 policy-rate'])
  })

  test('a new driver begins with no connections, and at the rate of the old one', async () => {
    const clock = new ManualClock()
    const { device, vmm } = await running({ policy: { toGuest: { maxConnections: 1, connectionRate: { perSecond: 1 } } }, clock })
    await connected(device, vmm)
    device.resetConnections()
    await expect(device.connect(5000)).rejects.toThrow('no more connections a second')
    await clock.advance(1000)
    await connected(device, vmm)
  })

  test('setPolicy: what is open stays open, and what waits goes on', async () => {
    const clock = new ManualClock()
    const { device, vmm } = await running({ policy: { fromGuest: { byteRate: { perSecond: 1024 } } }, clock })
    const { stream, request } = await connected(device, vmm)
    for (let n = 0; n < 10; n++) say(vmm, request, Op.RW, {}, Buffer.alloc(1000))
    const read = counted(stream)
    await expect.poll(read, { timeout: 10_000 }).toBeGreaterThanOrEqual(1000)
    expect(read()).toBeLessThan(5000)
    expect(() => device.setPolicy({ fromGuest: { byteRate: { perSecond: 0 } } })).toThrow(
      /^policy\.fromGuest\.byteRate\.perSecond: /,
    )
    device.setPolicy({ toGuest: { allow: [] } })
    await expect.poll(read, { timeout: 10_000 }).toBe(10_000)
    await expect(device.connect(5000)).rejects.toMatchObject({ code: 'EACCES' })
    expect(stream.destroyed).toBe(false)
  })

  test('time alone moves what waits', async () => {
    const clock = new ManualClock()
    const { device, vmm } = await running({ policy: { fromGuest: { byteRate: { perSecond: 2048 } } }, clock })
    const { stream, request } = await connected(device, vmm)
    for (let n = 0; n < 10; n++) say(vmm, request, Op.RW, {}, Buffer.alloc(1000))
    const read = counted(stream)
    await expect.poll(read, { timeout: 10_000 }).toBeGreaterThanOrEqual(1000)
    expect(read()).toBeLessThan(5000)
    for (let seconds = 0; seconds < 6; seconds++) await clock.advance(1000)
    await expect.poll(read, { timeout: 10_000 }).toBe(10_000)
  })
})

describe.runIf(binding !== undefined)('policies between guests', () => {
  async function siblings(policies: Record<number, VsockPolicy>) {
    const devices = Object.entries(policies).map(([cid, policy]) => ({
      ...{ socketPath: join(folder, `${cid}.sock`), guestCid: Number(cid), policy },
      groups: ['all', `odd-${Number(cid) % 2}`],
    }))
    const network = await createVsockNetwork({ devices })
    cleanups.push(() => network.close())
    const told: string[] = []
    const tell = (by: string) => (refusal: Refusal) => {
      told.push(`${by}: ${refusal.from.cid} to ${refusal.to.cid}:${refusal.to.port} ${refusal.reason}`)
    }
    network.on('refused', tell('network'))
    const guests = new Map<number, FakeFrontEnd>()
    for (const [cid, device] of network.devices) {
      device.on('refused', tell(`${cid}`))
      const vmm = await frontEnd(device.socketPath, cid)
      vmm.guest.supply(60)
      await vmm.start()
      guests.set(cid, vmm)
    }
    return { network, told, guest: (cid: number) => guests.get(cid)! }
  }

  test("the caller's and the other's have to agree", async () => {
    const { told, guest } = await siblings({
      3: { fromGuest: { allow: [{ peer: 4, ports: [22] }, { peer: 5 }] } },
      4: {},
      5: { toGuest: { allow: [{ peer: { group: 'odd-0' } }] } },
    })
    const answers: string[] = []
    const asked = [
      [3, 4, 23, 3],
      [3, 5, 1, 3],
      [4, 5, 1, 5],
      [3, 4, 22, 4],
    ] as const
    for (const [from, to, port, hears] of asked) {
      ask(guest(from), port, { destinationCid: to })
      const [answer] = await heard(guest(hears))
      answers.push(`${from} to ${to}:${port} ${opName(answer!)}`)
    }
    expect(answers).toEqual(['3 to 4:23 RST', '3 to 5:1 RST', '4 to 5:1 REQUEST', '3 to 4:22 REQUEST'])
    expect(told).toEqual([
      '3: 3 to 4:23 policy-port',
      'network: 3 to 4:23 policy-port',
      '3: 3 to 5:1 policy-port',
      'network: 3 to 5:1 policy-port',
    ])
  })

  test('connections at once, of the guest that is asked', async () => {
    const { network, told, guest } = await siblings({ 3: {}, 4: { toGuest: { maxConnections: 1 } } })
    const [a, b] = [guest(3), guest(4)]
    ask(a, 7, { destinationCid: 4 })
    const [request] = await heard(b)
    ask(a, 8, { destinationCid: 4 })
    expect((await heard(a)).map(opName)).toEqual(['RST'])
    say(b, request!, Op.RST, { destinationCid: 3 })
    expect((await heard(a)).map(opName)).toEqual(['RST'])
    ask(a, 8, { destinationCid: 4 })
    expect((await heard(b)).map(opName)).toEqual(['REQUEST'])
    expect(told).toEqual(['3: 3 to 4:8 policy-connections', 'network: 3 to 4:8 policy-connections'])
    expect(network.devices.get(4)!.connections).toBe(1)
  })

  test('setGroups: who may reach whom from now on', async () => {
    const { network, told, guest } = await siblings({ 3: {}, 4: {} })
    expect(() => network.devices.get(3)!.setGroups([7] as never)).toThrow('groups[0]: must be a name, got 7')
    network.devices.get(3)!.setGroups(['alone'])
    ask(guest(3), 7, { destinationCid: 4 })
    expect((await heard(guest(3))).map(opName)).toEqual(['RST'])
    expect(told).toEqual(['3: 3 to 4:7 group', 'network: 3 to 4:7 group'])
    network.devices.get(3)!.setGroups(['all'])
    ask(guest(3), 7, { destinationCid: 4 })
    expect((await heard(guest(4))).map(opName)).toEqual(['REQUEST'])
  })
})

import { once } from 'node:events'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { FakeFrontEnd } from '../testing/fake-front-end.js'
import { opName } from '../testing/fake-guest.js'
import { binding, cleanups, folder, frontEnd, heard, say } from '../testing/scene.js'
import type { Refusal } from './hub.js'
import { Op } from './machine/packet.js'
import { createVsockNetwork, VsockNetwork, type VsockNetworkOptions } from './network.js'

const pathOf = (cid: number) => join(folder, `${cid}.sock`)

async function network(cids: readonly number[] = [3, 4], options: Partial<VsockNetworkOptions> = {}) {
  const made = await createVsockNetwork({
    devices: cids.map((cid) => ({ socketPath: pathOf(cid), guestCid: cid })),
    ...options,
  })
  cleanups.push(() => made.close())
  return made
}

async function guest(cid: number): Promise<FakeFrontEnd> {
  const vmm = await frontEnd(pathOf(cid), cid)
  vmm.guest.supply(60)
  await vmm.start()
  return vmm
}

function ask(vmm: FakeFrontEnd, destinationCid: number, fields = {}): void {
  vmm.guest.send({ op: Op.REQUEST, sourcePort: 1000, destinationPort: 2000, destinationCid, ...fields })
  vmm.kick(1)
}

describe.runIf(binding !== undefined)('a network of devices', () => {
  test('two guests talk, each over its own VMM', async () => {
    await network()
    const [a, b] = [await guest(3), await guest(4)]
    ask(a, 4)
    const [request] = await heard(b)
    expect(request!.header).toMatchObject({ op: Op.REQUEST, sourceCid: 3, destinationCid: 4, destinationPort: 2000 })
    say(b, request!, Op.RESPONSE, { destinationCid: 3 })
    const [response] = await heard(a)
    say(a, response!, Op.RW, { destinationCid: 4 }, Buffer.from('hello'))
    expect((await heard(b)).map(({ payload }) => Buffer.from(payload).toString())).toEqual(['hello'])
  })

  test('a guest that goes, with its VMM or its device, is a reset for the other', async () => {
    const made = await network()
    const b = await guest(4)
    for (const go of [(vmm: FakeFrontEnd) => vmm.close(), () => made.devices.get(3)!.close()]) {
      const a = await guest(3)
      ask(a, 4)
      const [request] = await heard(b)
      say(b, request!, Op.RESPONSE, { destinationCid: 3 })
      await heard(a)
      void go(a)
      expect((await heard(b)).map(opName)).toEqual(['RST'])
    }
    expect([...made.devices.keys()]).toEqual([4])
  })

  test('tells of a connection that a guest was refused', async () => {
    const made = await network()
    const a = await guest(3)
    const refusals: Refusal[] = []
    made.on('refused', (refusal) => refusals.push(refusal))
    made.devices.get(3)!.on('refused', (refusal) => refusals.push(refusal))
    ask(a, 4, { type: 2 })
    expect((await heard(a)).map(opName)).toEqual(['RST'])
    const told = { from: { cid: 3, port: 1000 }, to: { cid: 4, port: 2000 }, type: 'seqpacket', reason: 'not-running' }
    expect(refusals).toEqual([told, told])
  })

  test("a listener that throws is the program's affair, and not the guest's", async () => {
    const made = await network()
    const a = await guest(3)
    const uncaught = process.rawListeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    const thrown = once(process, 'uncaughtException')
    made.once('refused', () => {
      throw new Error('of the listener')
    })
    ask(a, 4)
    expect((await heard(a)).map(opName)).toEqual(['RST'])
    expect(made.devices.get(3)!.state).toBe('running')
    expect(await thrown).toMatchObject([{ message: 'of the listener' }, 'uncaughtException'])
    for (const listener of uncaught) process.on('uncaughtException', listener as () => void)
  })

  test('has each CID once, and gives a closed one back', async () => {
    const made = await network()
    const again = { socketPath: pathOf(5), guestCid: 4 }
    await expect(made.add(again)).rejects.toMatchObject({ code: 'EADDRINUSE', subject: 'guest 4' })
    await made.devices.get(4)!.close()
    expect((await made.add(again)).guestCid).toBe(4)
  })

  test('is whole or not there', async () => {
    const devices = [
      { socketPath: pathOf(3), guestCid: 3 },
      { socketPath: pathOf(3), guestCid: 4 },
    ]
    await expect(createVsockNetwork({ devices })).rejects.toMatchObject({ code: 'EADDRINUSE' })
    await network([3])
  })

  test('takes no device once it is closed', async () => {
    const made = await network([3])
    await made.close()
    expect(made.devices.size).toBe(0)
    await expect(made.add({ socketPath: pathOf(3), guestCid: 3 })).rejects.toMatchObject({ code: 'ABORTED' })
  })

  test('a device that is closed before it listens says so', async () => {
    const made = await network([3])
    const adding = made.add({ socketPath: pathOf(4), guestCid: 4 })
    const refused = expect(adding).rejects.toMatchObject({ code: 'ABORTED' })
    await made.close()
    await refused
  })
})

test('add() says that its options are missing', async () => {
  await expect(new VsockNetwork().add(undefined as never)).rejects.toThrow('options: must be an object, got undefined')
})

test.each([
  [{ hostCids: [] }, 'hostCids: must be'],
  [{ hostCids: [42] }, 'hostCids[0]: must be another CID'],
  [{ hostCids: [-1] }, 'hostCids[0]: must be'],
  [{ groups: 'a' }, 'groups: must be'],
  [{ groups: [1] }, 'groups[0]: must be'],
])('%o is refused', async (options, message) => {
  const { VhostUserVsock } = await import('./vhost-user-vsock.js')
  expect(() => new VhostUserVsock({ socketPath: '/x', guestCid: 42, ...(options as object) })).toThrow(message)
})

import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { GUEST_BASE, GUEST_CID } from '../testing/fake-guest.js'
import { binding, connected, running, say } from '../testing/scene.js'
import { emptyHeader, encodePacketHeader, HOST_CID, Op } from './machine/packet.js'

describe.runIf(binding !== undefined)('a device among others in the event loop', () => {
  test('a guest with always more to say costs one budget a turn, however often it kicks', async () => {
    const { vmm } = await running()
    const { tx, memoryBytes } = vmm.guest
    // Resets of no connection, which are not answered, 60,000 bytes each: some 17 of them are a budget.
    const header = { ...emptyHeader(), op: Op.RST, sourceCid: GUEST_CID, destinationCid: HOST_CID, length: 60_000 }
    encodePacketHeader(header, new DataView(memoryBytes.buffer, memoryBytes.byteOffset + 0x8_0000))
    const packet = [{ address: GUEST_BASE + 0x8_0000, length: 60_044, writable: false }]
    const perTurn: number[] = []
    for (let i = 0; i < 60; i++) {
      while (tx.freeDescriptors > 0) tx.add(packet)
      vmm.kick(0)
      vmm.kick(1)
      await turn()
      perTurn.push(tx.takeUsed().length)
    }
    expect(Math.max(...perTurn)).toBeGreaterThan(0)
    expect(Math.max(...perTurn)).toBeLessThanOrEqual(4 * 18)
  })

  test('a stream that is read at once does not keep the loop from turning', async () => {
    const { device, vmm } = await running()
    const { stream, request } = await connected(device, vmm)
    let turned = false
    let packets = 0
    // A guest on another core: there is always another packet.
    stream.on('data', () => {
      vmm.guest.tx.takeUsed()
      if (!turned && ++packets < 5_000) say(vmm, request, Op.RW, {}, Buffer.alloc(1000))
    })
    say(vmm, request, Op.RW, {}, Buffer.alloc(1000))
    await once(stream, 'data')
    await turn()
    turned = true
    expect(packets).toBeLessThan(1_000)
  })
})

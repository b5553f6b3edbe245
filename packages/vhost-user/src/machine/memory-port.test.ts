import { expect, test } from 'vitest'
import { FakeGuest, GUEST_BASE, GUEST_CID, opName, USER_BASE } from '../../testing/fake-guest.js'
import { OPTIONS, readAll } from '../../testing/fake-vm.js'
import type { Chain } from './chain.js'
import { VsockDevice } from './device.js'
import { guestError } from './errors.js'
import type { Located, MemoryPort } from './memory.js'
import { Op } from './packet.js'
import { SplitRing } from './vring.js'

const PAGE = 4096

/**
 * Memory without a vhost-user table: the pages of a guest lie in buffers of their own, as granted pages would, and only the rings are
 * in one piece. `home` is the same memory as the guest sees it.
 */
class Pages implements MemoryPort {
  readonly rings: Uint8Array
  readonly pages: Uint8Array[] = []

  constructor(home: Uint8Array, ringBytes: number) {
    this.rings = home.subarray(0, ringBytes)
    // In the other order, so that no two neighbours are neighbours here.
    for (let at = home.length - PAGE; at >= ringBytes; at -= PAGE) this.pages.unshift(new Uint8Array(PAGE))
  }

  append(address: number, length: number, writable: boolean, chain: Chain): void {
    for (let at = address - GUEST_BASE, left = length; left > 0; ) {
      const offset = at % PAGE
      const n = Math.min(left, PAGE - offset)
      chain.append(this.#page(at), offset, n, writable)
      at += n
      left -= n
    }
  }

  locate(address: number, length: number): Located {
    const at = address - GUEST_BASE
    if ((at % PAGE) + length > PAGE) throw guestError('OUT_OF_BOUNDS', 'indirect table', 'it does not lie in one page')
    return { window: this.#page(at), offset: at % PAGE }
  }

  locateUser(address: number, length: number): Located | undefined {
    const offset = address - USER_BASE
    return offset >= 0 && offset + length <= this.rings.length ? { window: this.rings, offset } : undefined
  }

  #page(at: number): Uint8Array {
    const page = this.pages[Math.floor((at - this.rings.length) / PAGE)]
    if (page === undefined) throw guestError('OUT_OF_BOUNDS', 'buffer', 'it does not lie in a page')
    return page
  }

  /** What the guest wrote arrives in the pages, or what the device wrote in the guest. */
  copy(home: Uint8Array, direction: 'in' | 'out'): void {
    for (const [i, page] of this.pages.entries()) {
      const place = home.subarray(this.rings.length + i * PAGE, this.rings.length + (i + 1) * PAGE)
      if (direction === 'in') page.set(place)
      else place.set(page)
    }
  }
}

test('a device runs over memory of any kind, without a vhost-user session', () => {
  const guest = new FakeGuest()
  const memory = new Pages(guest.memoryBytes, 0x1_1000)
  const device = new VsockDevice(OPTIONS, {})
  const rx = new SplitRing(memory, guest.rx.layout, guest.features, 0)
  const tx = new SplitRing(memory, guest.tx.layout, guest.features, 0)
  const run = () => {
    memory.copy(guest.memoryBytes, 'in')
    while (device.process(rx, tx, 0)) {}
    memory.copy(guest.memoryBytes, 'out')
    return guest.received()
  }

  guest.supply(20, 4096)
  const connection = device.muxer.connect(5000, 0)!
  const [request] = run()
  expect(opName(request!)).toBe('REQUEST')
  expect(request!.header.destinationCid).toBe(GUEST_CID)
  const { sourcePort, destinationPort } = request!.header
  const ports = { sourcePort: destinationPort, destinationPort: sourcePort }
  guest.send({ op: Op.RESPONSE, ...ports })
  run()
  expect(connection.state).toBe('open')

  // Packets that begin in one page and end in another.
  const words = Uint8Array.from({ length: 3000 }, (_, i) => i % 251)
  connection.write(words)
  const bytes = run().flatMap(({ payload }) => [...payload])
  expect(bytes).toEqual([...words])
  guest.send({ op: Op.RW, ...ports }, words)
  run()
  expect(readAll(connection)).toEqual([...words])
})

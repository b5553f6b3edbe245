import type { GuestConnection } from '@upcall/server'
import { expect, test } from 'vitest'
import { EIO, FakeLinux, JumpingClock } from '../../../testing/fake-linux.js'
import { LinuxGuest } from './guest.js'

const connection: GuestConnection = { id: 1, remote: '', delay: () => Promise.resolve() }

/** All CPUs are present from boot, as the device tree lists them. */
function setUp(online: readonly number[], present = 4) {
  const linux = new FakeLinux()
  linux.possible = 6
  for (let number = 0; number < present; number++) {
    linux.cpus.set(number, { number, apicId: number, online: online.includes(number) })
  }
  const clock = new JumpingClock()
  const guest = new LinuxGuest({ arch: 'aarch64', clock }, linux)
  return {
    linux,
    clock,
    add: (count: number) => guest.cpu.add({ type: 'ADD_CPU', count }, connection),
    remove: (count: number) => guest.cpu.remove({ type: 'DEL_CPU', count }, connection),
  }
}

test('counts up from the CPUs that are online, and down from the last', async () => {
  const { linux, add, remove } = setUp([0])
  expect(await add(3)).toEqual({ result: 0, index: 4 })
  expect(await remove(2)).toEqual({ result: 0, index: 2 })
  expect(linux.written).toEqual(['cpu1 1', 'cpu2 1', 'cpu3 1', 'cpu3 0', 'cpu2 0'])
})

test('more than the kernel has room for: −22 at once', async () => {
  const { linux, clock, add } = setUp([0])
  expect(await add(6)).toEqual({ result: -22, index: 1 })
  expect([linux.written, clock.now()]).toEqual([[], 0])
})

test('a CPU that is not there yet may take 5 s to appear', async () => {
  const { linux, clock, add } = setUp([0, 1], 2)
  clock.setTimer(1000, () => linux.cpus.set(2, { number: 2, apicId: 2, online: false }))
  expect(await add(1)).toEqual({ result: 0, index: 3 })
  const late = clock.now()
  expect(await add(1)).toEqual({ result: -22, index: 3 })
  expect(clock.now() - late).toBe(5000)
})

test('it is a success if another program brings the CPU online first', async () => {
  const { linux, clock, add } = setUp([0, 1], 2)
  clock.setTimer(1000, () => linux.cpus.set(2, { number: 2, apicId: 2, online: true, refusesOn: -16 }))
  expect(await add(1)).toEqual({ result: 0, index: 3 })
})

test('as many as there are, or more: −22', async () => {
  const { linux, remove } = setUp([0, 1])
  expect(await remove(2)).toEqual({ result: -22, index: 2 })
  expect(await remove(3)).toEqual({ result: -22, index: 2 })
  expect(linux.written).toEqual([])
})

test('after a hole the count leads to the wrong number: +1, and nothing is done', async () => {
  const { linux, add, remove } = setUp([0, 2])
  expect(await add(1)).toEqual({ result: 1, index: 2 })
  expect(await remove(1)).toEqual({ result: 1, index: 2 })
  expect(linux.written).toEqual([])
})

test('a batch of which one fails is taken back', async () => {
  const { linux, add } = setUp([0])
  linux.cpus.get(2)!.refusesOn = EIO
  expect(await add(3)).toEqual({ result: EIO, index: 1 })
  expect(linux.online).toEqual([0])
})

import { expect, test } from 'vitest'
import { Allowance, MAX_HELD } from './allowance.js'

const KIB = 1024

test('what waits is counted by receiver, and none is to blame while the sender is not held up', () => {
  const allowance = new Allowance()
  allowance.charge(4, MAX_HELD - KIB, 0)
  expect([allowance.held, allowance.full, allowance.checkAt]).toEqual([MAX_HELD - KIB, false, Number.POSITIVE_INFINITY])
  expect(allowance.check(1_000_000)).toEqual([])
  expect(allowance.release(4, MAX_HELD - KIB)).toBe(false)
  expect(allowance.held).toBe(0)
})

test('a receiver that takes nothing is to blame after a second, and a receiver that takes its share is not', () => {
  const allowance = new Allowance()
  allowance.charge(4, 3072 * KIB, 0)
  allowance.charge(5, 1024 * KIB, 0)
  expect(allowance.full).toBe(true)
  expect(allowance.check(999)).toEqual([])
  expect(allowance.release(5, 64 * KIB)).toBe(true)
  allowance.charge(5, 64 * KIB, 999)
  expect(allowance.check(1_000)).toEqual([4])
  // The share counts by period.
  expect(allowance.check(2_000)).toEqual([4, 5])
})

test('a receiver that takes a packet each second does not put the blame off', () => {
  const allowance = new Allowance()
  allowance.charge(4, MAX_HELD, 0)
  for (let now = 250; now < 1_000; now += 250) {
    allowance.release(4, 4 * KIB)
    allowance.charge(4, 4 * KIB, now)
  }
  expect(allowance.check(1_000)).toEqual([4])
})

test('a sender that is let go by half is not looked into', () => {
  const allowance = new Allowance()
  allowance.charge(4, MAX_HELD, 0)
  allowance.release(4, MAX_HELD / 2 + 1)
  expect(allowance.checkAt).toBe(Number.POSITIVE_INFINITY)
})

test('for a minute, half of what is left may wait for a receiver that was to blame', () => {
  const allowance = new Allowance()
  allowance.charge(4, MAX_HELD, 0)
  expect(allowance.check(1_000)).toEqual([4])
  allowance.release(4, MAX_HELD)
  let waits = 0
  for (let i = 0; i < 1_000 && allowance.permits(4, 64 * KIB, 60_999); i++) {
    allowance.charge(4, 64 * KIB, 60_999)
    waits += 64 * KIB
  }
  // A third: as much again, and half of that is left.
  expect(waits).toBeGreaterThan(1024 * KIB)
  expect(waits).toBeLessThan(1536 * KIB)
  expect(allowance.permits(5, MAX_HELD, 60_999)).toBe(true)
  expect(allowance.permits(4, MAX_HELD, 61_000)).toBe(true)
})

test('however many were to blame, something is left for the others', () => {
  const allowance = new Allowance()
  for (let cid = 10; cid < 50; cid++) allowance.charge(cid, MAX_HELD / 40 + 1, 0)
  expect(allowance.check(1_000)).toHaveLength(40)
  for (let cid = 10; cid < 50; cid++) allowance.release(cid, MAX_HELD / 40 + 1)
  for (let cid = 10; cid < 50; cid++) {
    for (let i = 0; i < 20_000 && allowance.permits(cid, 256, 3_000); i++) allowance.charge(cid, 256, 3_000)
  }
  expect(allowance.full).toBe(false)
})

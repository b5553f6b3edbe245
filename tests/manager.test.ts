import { simulatedGuest } from '@upcall/device-manager/guest'
import { expect, test } from 'vitest'
import { simulate } from './support/simulation.js'

test('+1 is an error, with its own name and advice', async () => {
  const { guest, clock, manager } = simulate({ arch: 'x86_64', cpus: 2 })
  guest.setCpuOnline(1, false)
  await expect(clock.drive(manager('x86_64').removeCpus({ apicIds: [1] }))).rejects.toMatchObject({
    name: 'GuestError',
    outcome: 'guest-error',
    errno: 1,
    errnoName: '+1',
    message: expect.stringContaining('a CPU is in that state already'),
  })
})

test('the simulated guest says which option is wrong', () => {
  expect(() => simulatedGuest({ arch: 'x86_64', cpus: 0 })).toThrow('cpus: must be an integer from 1 to 256, got 0')
})

test('arguments that are not there reject with a WireError, as wrong ones do', async () => {
  const { manager } = simulate({ arch: 'x86_64' })
  const nothing = undefined as never
  const m = manager('x86_64')
  for (const call of [
    () => m.addCpus(nothing),
    () => m.removeCpus(nothing),
    () => m.addMmio(nothing),
    () => m.removeMmio(nothing),
    () => m.addPci(nothing),
    () => m.removePci(nothing),
    () => m.request(nothing),
  ]) {
    await expect(call()).rejects.toMatchObject({ name: 'WireError', code: 'ARGUMENT' })
  }
})

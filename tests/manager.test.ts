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
    message: expect.stringContaining('a CPU was in that state already'),
  })
})

test('the simulated guest says which option is wrong', () => {
  expect(() => simulatedGuest({ arch: 'x86_64', cpus: 0 })).toThrow('cpus: must be an integer in 1 … 256, got 0')
})

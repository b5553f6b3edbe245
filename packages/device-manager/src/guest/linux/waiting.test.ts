import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { expect, test } from 'vitest'
import { Waiting } from './waiting.js'

test('a pause between two looks ends when the signal aborts', async () => {
  const clock = new ManualClock()
  const abort = new AbortController()
  let looks = 0
  const seen = new Waiting('linuxGuest', clock, abort.signal).until(60_000, async () => {
    looks++
    return undefined
  })
  await expect.poll(() => looks).toBe(1)
  abort.abort('enough')
  await expect(seen).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
  expect(looks).toBe(1)
})

import { seededRandom } from '@upcall/foundation/testing/seeded-random'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { TwoMachines, type Weather } from './support/two-machines.js'

const CALM: Weather = { dialFails: 0, unavailable: 0, cutOff: 0, tears: 0, crashes: 0, dawdles: 0, refuses: 0 }
const chance = fc.double({ min: 0, max: 0.5, noNaN: true })
const weather: fc.Arbitrary<Weather> = fc.record({
  dialFails: chance,
  unavailable: chance,
  cutOff: chance,
  tears: chance,
  crashes: chance,
  dawdles: chance,
  refuses: chance,
})
const requests = fc.array(
  fc.record({
    at: fc.nat(5_000),
    clean: fc.boolean(),
    deadlineMs: fc.option(fc.integer({ min: 1, max: 3_000 }), { nil: undefined }),
  }),
  { minLength: 1, maxLength: 15 },
)

it('in calm weather every request is answered, in order, over one connection', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(3_000), { minLength: 1, maxLength: 30 }), fc.integer(), (times, seed) => {
      const both = new TwoMachines(CALM, seededRandom(seed))
      for (const ms of times) both.request(ms)
      both.run()
      expect(new Set(both.outcomes.values())).toEqual(new Set(['ok']))
      expect(both.links).toHaveLength(1)
      expect(both.executed).toEqual(
        times
          .map((at, i) => ({ at, token: i + 1 }))
          .sort((a, b) => a.at - b.at || a.token - b.token)
          .map(({ token }) => token),
      )
    }),
  )
})

it('in any weather each request settles once, truthfully, is done at most once, and nothing stays open', () => {
  const seen = new Set<string>()
  let reconnected = 0
  fc.assert(
    fc.property(weather, requests, fc.integer(), (weather, requests, seed) => {
      const both = new TwoMachines(weather, seededRandom(seed))
      const tokens = requests.map(({ at, ...options }) => both.request(at, options))
      both.run()
      for (const token of tokens) {
        const outcome = both.outcomes.get(token) ?? 'never settled'
        const times = both.executed.filter((each) => each === token).length
        if (outcome === 'ok') expect(times, `request ${token}: ok`).toBe(1)
        else if (outcome === 'not-sent') expect(times, `request ${token}: not-sent`).toBe(0)
        else {
          expect(outcome).toBe('indeterminate')
          expect(times, `request ${token}: indeterminate`).toBeLessThanOrEqual(1)
          seen.add(times === 1 ? 'indeterminate, done' : 'indeterminate, not done')
        }
        seen.add(outcome)
      }
      if (both.links.length > 1) reconnected++
      both.close()
      both.run()
      expect(both.client.state).toBe('Closed')
      expect(both.client.wakeAt).toBe(Number.POSITIVE_INFINITY)
      for (const { server } of both.links) expect(['Ended', 'Handling']).toContain(server.state.kind)
    }),
    // Always the same ones: what they bring about is looked at below.
    { numRuns: 500, seed: 1 },
  )
  expect(seen).toEqual(new Set(['ok', 'not-sent', 'indeterminate', 'indeterminate, done', 'indeterminate, not done']))
  expect(reconnected).toBeGreaterThan(100)
})

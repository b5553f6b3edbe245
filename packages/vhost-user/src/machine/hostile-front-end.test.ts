import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MEMORY_SIZE, USER_BASE } from '../../testing/fake-guest.js'
import { REGION, SessionScene } from '../../testing/session-scene.js'
import { StrictPlatform } from '../../testing/strict-platform.js'
import { encodeFrontEndMessage } from '../front-end/message.js'
import { DEVICE_FEATURES, P_XEN_MMAP, PROTOCOL_FEATURES } from './features.js'
import { type FrontEndMessage, frame, MESSAGE_HEADER_SIZE, Request } from './message-format.js'

// A VMM is trusted with the guest's memory, and not to send the right message. Whatever it says, in whatever order: what comes out is a
// reply, a fault, a refusal or a DeviceError; no descriptor and no mapping stays behind.

/** Mostly what makes sense, sometimes the edge of it, sometimes anything. */
const near = (value: number) =>
  fc.oneof({ weight: 6, arbitrary: fc.constant(value) }, { weight: 1, arbitrary: fc.constantFrom(0, value + 1, 2 ** 32 - 1) })
const place = (offset: number) => near(USER_BASE + offset)
const ring = fc.oneof({ weight: 8, arbitrary: fc.constantFrom(0, 1) }, { weight: 1, arbitrary: fc.constantFrom(2, 3, 255) })
const { layout } = new SessionScene().guest.tx
const region = fc.oneof(
  { weight: 3, arbitrary: fc.constant(REGION) },
  {
    weight: 1,
    arbitrary: fc.record({
      guestAddress: near(0x8000_0000),
      userAddress: place(2 * MEMORY_SIZE),
      size: near(4096).map((size) => size % 2 ** 24),
      fileOffset: near(0),
    }),
  },
)

const message: fc.Arbitrary<FrontEndMessage> = fc.oneof(
  fc.record({
    request: fc.constantFrom('GET_FEATURES' as const, 'SET_OWNER' as const, 'RESET_OWNER' as const, 'RESET_DEVICE' as const),
  }) as fc.Arbitrary<FrontEndMessage>,
  fc.record({
    request: fc.constant('SET_FEATURES' as const),
    features: fc.constantFrom(DEVICE_FEATURES, 0n, DEVICE_FEATURES & ~(1n << 30n), 1n << 63n),
  }),
  fc.record({
    request: fc.constant('SET_PROTOCOL_FEATURES' as const),
    features: fc.constantFrom(PROTOCOL_FEATURES, 0n, PROTOCOL_FEATURES | P_XEN_MMAP),
  }),
  fc.record({ request: fc.constant('SET_MEM_TABLE' as const), regions: fc.array(region, { maxLength: 3 }) }),
  fc.record({ request: fc.constantFrom('ADD_MEM_REG' as const, 'REM_MEM_REG' as const), region }),
  fc.record({ request: fc.constant('SET_VRING_NUM' as const), ring, value: near(layout.size) }),
  fc.record({
    request: fc.constant('SET_VRING_ADDR' as const),
    ...{ ring, flags: fc.constant(0), log: fc.constant(0) },
    ...{ desc: near(layout.desc), used: near(layout.used), avail: near(layout.avail) },
  }),
  fc.record({ request: fc.constantFrom('SET_VRING_BASE' as const, 'GET_VRING_BASE' as const), ring, value: near(0) }),
  fc.record({ request: fc.constant('SET_VRING_ENABLE' as const), ring, value: fc.constantFrom(1, 1, 0) }),
  fc.record({
    request: fc.constantFrom('SET_VRING_KICK' as const, 'SET_VRING_CALL' as const, 'SET_VRING_ERR' as const),
    ...{ ring, descriptor: fc.boolean() },
  }),
  fc.record({
    request: fc.constantFrom('GET_CONFIG' as const, 'SET_CONFIG' as const),
    ...{ offset: near(0), flags: fc.constant(0), bytes: fc.uint8Array({ maxLength: 16 }) },
  }),
)

const step = fc.record({
  bytes: fc.oneof(
    {
      weight: 12,
      arbitrary: fc.tuple(message, fc.boolean()).map(([each, needReply]) => encodeFrontEndMessage(each, { needReply })),
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(fc.integer({ min: 0, max: 50 }), fc.uint8Array({ maxLength: 80 }), fc.boolean())
        .map(([request, payload, needReply]) => frame(request, payload, { needReply })),
    },
  ),
  /** Undefined: as many as the message needs. */
  descriptors: fc.option(fc.integer({ min: 0, max: 8 }), { nil: undefined, freq: 12 }),
  fail: fc.integer({ min: 0, max: 20 }).map((n) => n === 0),
})

const NEEDS_ONE: readonly number[] = [Request.ADD_MEM_REG, Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR]

function needed(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const request = view.getUint32(0, true)
  if (request === Request.SET_MEM_TABLE && bytes.length > MESSAGE_HEADER_SIZE + 4) {
    return Math.min(view.getUint32(MESSAGE_HEADER_SIZE, true), 8)
  }
  return NEEDS_ONE.includes(request) ? 1 : 0
}

test('whatever a front end says, nothing is left behind, and the rings are worked on only in memory that is there', () => {
  let ran = 0
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
      const platform = new StrictPlatform()
      const scene = new SessionScene(platform)
      // Half of the front ends begin as they should.
      if (steps.length % 2 === 0) {
        scene.negotiate()
        scene.tell({ request: 'SET_MEM_TABLE', regions: [REGION] }, { descriptors: platform.descriptors(1) })
        for (const number of [0, 1]) scene.startRing(number)
      }
      for (const { bytes, descriptors, fail } of steps) {
        platform.fail = fail
        try {
          scene.tellBytes(bytes, platform.descriptors(descriptors ?? needed(bytes)))
        } catch (error) {
          expect(error).toSatisfy((thrown: Error) => thrown.name === 'DeviceError' || thrown.message === 'out of memory')
        }
        expect(platform.open.size).toBe(0)
        if (scene.session.tx === undefined) continue
        expect([...platform.live].some(({ userAddress }) => userAddress === USER_BASE)).toBe(true)
        scene.guest.tx.startAt(scene.session.tx.base)
        if (scene.guest.tx.freeDescriptors > 0 && scene.turnTx()) ran++
        scene.guest.tx.takeUsed()
      }
      scene.session.close()
      expect([platform.open.size, platform.live.size]).toEqual([0, 0])
    }),
    { numRuns: 500 },
  )
  // It is worth something only if the rings do run now and then.
  expect(ran).toBeGreaterThan(500)
})

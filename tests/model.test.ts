import { type Effect, type OutsideEvent, SessionMachine, type SessionOptions } from '@upcall/client'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { isToyRequest, tokenOf, toyGreeting, toyReply, toyService, toyTicket } from './support/toy-service.js'

// Commands in any order against the client's machine. The model knows the wire and every promise made to a caller, not the machine's
// inside: what must hold is checked on each effect.

const QUEUE_LIMIT = 3
const options = (random: () => number): SessionOptions => ({
  service: toyService as SessionOptions['service'],
  remote: 'guest',
  dialMs: 500,
  greetingMs: 300,
  pace: { budgetMs: 4_000, minDelayMs: 10, maxDelayMs: 400, random },
  queue: { limit: QUEUE_LIMIT },
})

type Fate = 'waiting' | 'sent' | 'settled'

/** One connection, seen from the guest. */
interface Wire {
  state: 'dialing' | 'open' | 'over'
  /** What the guest has said and the client has not read. */
  toClient: number[]
  /** The requests that the guest has read and not answered. */
  asked: number[]
  failedReply: boolean
  greeted: boolean
}

class World {
  readonly machine: SessionMachine
  now = 0
  nextToken = 1
  readonly fates = new Map<number, Fate>()
  readonly accepted: number[] = []
  readonly clean = new Set<number>()
  readonly wires = new Map<number, Wire>()
  closed = false
  inFlight: { token: number; conn: number } | undefined
  /** The stream has ended under the client's hands: its next write is not begun. */
  unwritable = false
  /** What came to pass at least once, over all runs. */
  readonly seen: Set<string>

  constructor(random: () => number, seen: Set<string>) {
    this.machine = new SessionMachine(options(random), this.now)
    this.seen = seen
  }

  get wire(): { conn: number; wire: Wire } | undefined {
    for (const [conn, wire] of this.wires) if (wire.state !== 'over') return { conn, wire }
    return undefined
  }

  tell(event: OutsideEvent): void {
    const effects = this.machine.step(event, this.now)
    if ('conn' in event && ['dialFailed', 'ended', 'unsent'].includes(event.type)) this.wires.get(event.conn)!.state = 'over'
    let unsent: number | undefined
    for (const effect of effects) {
      if (effect.type === 'write' && this.unwritable) unsent = effect.conn
      else this.#check(effect)
    }
    if (unsent === undefined) {
      this.#checkRest()
    } else {
      this.unwritable = false
      this.seen.add('unsent')
      this.tell({ type: 'unsent', conn: unsent })
    }
  }

  #check(effect: Effect): void {
    this.seen.add(effect.type === 'reconnect' ? effect.reason : effect.type)
    switch (effect.type) {
      case 'dial':
        expect(this.closed, 'dials after close').toBe(false)
        expect(this.wire, 'dials with a connection open').toBeUndefined()
        expect(this.wires.has(effect.conn), 'uses a number twice').toBe(false)
        this.wires.set(effect.conn, { state: 'dialing', toClient: [], asked: [], failedReply: false, greeted: false })
        break
      case 'write':
        this.#written(effect.conn, effect.bytes)
        break
      case 'drop':
        this.wires.get(effect.conn)!.state = 'over'
        this.unwritable = false
        break
      case 'reply': {
        const { token, failed } = effect.reply as { token: number; failed: boolean }
        expect(effect.id, 'a reply reached another request').toBe(token)
        expect(this.inFlight?.token, 'a reply to what is not under way').toBe(token)
        this.wires.get(this.inFlight!.conn)!.failedReply ||= failed
        this.#settle(effect.id)
        this.inFlight = undefined
        break
      }
      case 'fail': {
        const sent = this.fates.get(effect.id) === 'sent'
        expect(effect.error.outcome, effect.error.message).toBe(sent ? 'indeterminate' : 'not-sent')
        this.seen.add(`${effect.error.outcome} ${effect.error.code}`)
        this.#settle(effect.id)
        if (sent) this.inFlight = undefined
        break
      }
      case 'state':
        expect(effect.state, 'a state event without a change').not.toBe(effect.previous)
        break
      case 'reconnect':
        break
    }
  }

  #written(conn: number, bytes: Uint8Array): void {
    const wire = this.wires.get(conn)
    expect(wire?.state, 'writes to what is not open').toBe('open')
    if (!isToyRequest(bytes)) {
      expect([...bytes], 'neither the service byte nor a request').toEqual([toyService.byte])
      return
    }
    const token = tokenOf(bytes)
    expect(this.inFlight, 'two requests in flight').toBeUndefined()
    expect(this.fates.get(token), 'sends what is settled or was sent').toBe('waiting')
    expect(
      this.accepted.find((each) => this.fates.get(each) === 'waiting'),
      'out of order',
    ).toBe(token)
    if (this.clean.has(token)) expect(wire!.failedReply, 'not a clean channel').toBe(false)
    this.fates.set(token, 'sent')
    this.inFlight = { token, conn }
    wire!.asked.push(token)
  }

  #settle(id: number): void {
    expect(['waiting', 'sent'], 'settles twice').toContain(this.fates.get(id))
    this.fates.set(id, 'settled')
  }

  #checkRest(): void {
    const waiting = this.accepted.filter((token) => this.fates.get(token) === 'waiting')
    const unsettled = this.accepted.filter((token) => this.fates.get(token) !== 'settled')
    expect(this.machine.queued).toBe(waiting.length)
    expect(this.machine.state === 'ServiceBusy', 'busy exactly while one is in flight').toBe(this.inFlight !== undefined)
    // For each request that waits a timer is set, and it lies ahead.
    if (unsettled.length > 0) expect(Number.isFinite(this.machine.wakeAt), 'a request waits and no timer is set').toBe(true)
    if (this.closed) {
      expect(unsettled, 'unsettled after close').toEqual([])
      expect(this.wire, 'open after close').toBeUndefined()
      expect(this.machine.wakeAt, 'a timer after close').toBe(Number.POSITIVE_INFINITY)
    }
    if (this.machine.state === 'ReconnectError') expect(unsettled, 'waits for what will not come').toEqual([])
  }
}

/** The model proper is empty: everything lives in World, which fast-check makes for each run. */
type Command = fc.Command<object, World>
const command = (name: string, check: (world: World) => boolean, run: (world: World) => void): Command => ({
  check: () => true,
  // Whether a command applies depends on the real thing; a command that does not is a no-op.
  run: (_model, world) => {
    if (check(world)) run(world)
  },
  toString: () => name,
})
const open = (world: World) => world.wire?.wire.state === 'open'
const dialing = (world: World) => world.wire?.wire.state === 'dialing'

const request = fc.record({ clean: fc.boolean(), timeoutMs: fc.option(fc.integer({ min: 1, max: 3_000 }), { nil: undefined }) })
const commands = [
  request.map(({ clean, timeoutMs }) =>
    command(
      `request(${clean ? 'clean' : ''}${timeoutMs === undefined ? '' : ` ${timeoutMs} ms`})`,
      () => true,
      (world) => {
        const token = world.nextToken++
        world.fates.set(token, 'waiting')
        if (clean) world.clean.add(token)
        const ticket = toyTicket({ token, clean }, world.now + (timeoutMs ?? Number.POSITIVE_INFINITY))
        world.accepted.push(token)
        world.tell({ type: 'request', ticket })
      },
    ),
  ),
  fc.constant(
    command('dialed', dialing, (world) => {
      const { conn, wire } = world.wire!
      wire.state = 'open'
      world.tell({ type: 'dialed', conn })
    }),
  ),
  fc.constant(
    command('greets', open, (world) => {
      const { wire } = world.wire!
      wire.greeted = true
      wire.toClient.push(...toyGreeting())
    }),
  ),
  fc.boolean().map((failed) =>
    command(
      failed ? 'refuses' : 'answers',
      (world) => open(world) && world.wire!.wire.asked.length > 0,
      (world) => {
        const { wire } = world.wire!
        wire.toClient.push(...toyReply({ token: wire.asked.shift()!, failed }))
      },
    ),
  ),
  fc.integer({ min: 1, max: 20 }).map((length) =>
    command(
      `chunk(${length})`,
      (world) => open(world) && world.wire!.wire.toClient.length > 0,
      (world) => {
        const { conn, wire } = world.wire!
        world.tell({ type: 'bytes', conn, chunk: Uint8Array.from(wire.toClient.splice(0, length)) })
      },
    ),
  ),
  fc.uint8Array({ minLength: 1, maxLength: 9 }).map((bytes) =>
    // Never the first byte of a reply: what the guest answers is for the command above.
    command('garbage', open, (world) => void world.wire!.wire.toClient.push(...bytes.map((byte) => byte & 0x0f))),
  ),
  fc.boolean().map((final) =>
    command(final ? 'refused for good' : 'refused', dialing, (world) => {
      world.tell({ type: 'dialFailed', conn: world.wire!.conn, error: new Error('refused'), final })
    }),
  ),
  fc.constant(command('eof', open, (world) => world.tell({ type: 'ended', conn: world.wire!.conn }))),
  fc.constant(
    command('reset', open, (world) => world.tell({ type: 'ended', conn: world.wire!.conn, error: new Error('ECONNRESET') })),
  ),
  fc.constant(
    command(
      'abort what is under way',
      (world) => world.inFlight !== undefined,
      (world) => world.tell({ type: 'abort', id: world.inFlight!.token, reason: new Error('aborted') }),
    ),
  ),
  fc.constant(
    command('the stream ends unseen', open, (world) => {
      world.unwritable = true
    }),
  ),
  fc.nat(4).map((back) =>
    command(
      `abort(${back})`,
      (world) => world.accepted.length > back,
      (world) => world.tell({ type: 'abort', id: world.accepted.at(-1 - back)!, reason: new Error('aborted') }),
    ),
  ),
  fc.integer({ min: 0, max: 1_500 }).map((ms) =>
    command(
      `tick(${ms})`,
      () => true,
      (world) => {
        world.now += ms
        world.tell({ type: 'wake' })
      },
    ),
  ),
  fc.constant(
    command(
      'wake',
      (world) => Number.isFinite(world.machine.wakeAt),
      (world) => {
        world.now = Math.max(world.now, world.machine.wakeAt)
        world.tell({ type: 'wake' })
      },
    ),
  ),
  // What a connection that was dropped still says comes too late and means nothing.
  fc.constant(
    command(
      'late',
      (world) => [...world.wires.values()].some(({ state }) => state === 'over'),
      (world) => {
        const [conn] = [...world.wires].find(([, { state }]) => state === 'over')!
        const before = world.machine.state
        const chunk = toyReply({ token: 0xffff, failed: false })
        expect(world.machine.step({ type: 'bytes', conn, chunk }, world.now)).toEqual([])
        expect(world.machine.step({ type: 'ended', conn }, world.now)).toEqual([])
        expect(world.machine.step({ type: 'dialed', conn }, world.now)).toEqual([])
        expect(world.machine.state).toBe(before)
      },
    ),
  ),
  fc.constant(
    command(
      'reconnect',
      () => true,
      (world) => world.tell({ type: 'reconnect' }),
    ),
  ),
]
const close = fc.constant(
  command(
    'close',
    () => true,
    (world) => {
      world.closed = true
      world.tell({ type: 'close' })
    },
  ),
)
/** The next thing that a guest in good order would do, all of it. */
const forward = fc.boolean().map((failed) =>
  command(
    failed ? 'forward, refusing' : 'forward',
    () => true,
    (world) => {
      if (world.wire === undefined) {
        if (!Number.isFinite(world.machine.wakeAt)) return
        world.now = Math.max(world.now, world.machine.wakeAt)
        return world.tell({ type: 'wake' })
      }
      const { conn, wire } = world.wire
      if (wire.state === 'dialing') {
        wire.state = 'open'
        return world.tell({ type: 'dialed', conn })
      }
      if (!wire.greeted) wire.toClient.push(...toyGreeting())
      wire.greeted = true
      const token = wire.asked.shift()
      if (token !== undefined) wire.toClient.push(...toyReply({ token, failed }))
      if (wire.toClient.length > 0) world.tell({ type: 'bytes', conn, chunk: Uint8Array.from(wire.toClient.splice(0)) })
    },
  ),
)
// What brings a session forward comes often, what ends it for good seldom.
const mix = fc.commands(
  [...commands, ...Array<fc.Arbitrary<Command>>(6).fill(forward), ...Array<fc.Arbitrary<Command>>(4).fill(commands[0]!), close],
  {
    maxCommands: 120,
    size: 'max',
  },
)

it('whatever happens, in whatever order, each request settles once, truthfully, and with its own reply', {
  timeout: 120_000,
}, () => {
  const seen = new Set<string>()
  fc.assert(
    fc.property(mix, fc.infiniteStream(fc.double({ min: 0, max: 0.999, noNaN: true })), (commands, randoms) => {
      const world = new World(() => randoms.next().value as number, seen)
      fc.modelRun(() => ({ model: {}, real: world }), commands)
      // In the end no request is left waiting, whether the guest ever comes back or not.
      for (let turns = 0; world.accepted.some((token) => world.fates.get(token) !== 'settled'); turns++) {
        expect(turns, 'a livelock').toBeLessThan(2_000)
        world.now = Math.max(world.now, world.machine.wakeAt)
        world.tell({ type: 'wake' })
      }
    }),
    // Always the same ones: what they bring about is looked at below.
    { numRuns: 600, seed: 1 },
  )
  // The commands are worth something only if they bring about everything there is.
  expect([...seen].sort()).toEqual(
    [
      ...['dial', 'write', 'unsent', 'drop', 'reply', 'fail', 'state'],
      ...['dial-failed', 'dial-timeout', 'greeting-timeout', 'disconnected', 'protocol'],
      ...['request-timeout', 'request-aborted', 'clean-channel'],
      ...['not-sent ABORTED', 'not-sent CLOSED', 'not-sent QUEUE_FULL', 'not-sent TIMEOUT', 'not-sent UNREACHABLE'],
      ...['indeterminate ABORTED', 'indeterminate CLOSED', 'indeterminate DISCONNECTED'],
      ...['indeterminate PROTOCOL', 'indeterminate TIMEOUT'],
    ].sort(),
  )
})

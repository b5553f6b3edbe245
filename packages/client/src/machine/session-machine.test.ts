import { describe, expect, test } from 'vitest'
import type { Service } from '../service.js'
import type { SessionOptions } from './context.js'
import type { Effect, OutsideEvent } from './event.js'
import { SessionMachine } from './session-machine.js'
import type { Ticket } from './state.js'
import { table } from './table.js'

// A service whose messages are four bytes: 'HELO' greets, a request is 'r' and a letter, its reply the same letter and a result digit.
const service: Service<string, string> = {
  byte: 0x78,
  messageSize: 4,
  checkGreeting(frame) {
    if (text(frame) !== 'HELO') throw new Error(`not a greeting: ${text(frame)}`)
  },
  encode: (request) => bytes(`r${request}__`),
  decode(frame, request) {
    if (text(frame)[0] !== request) throw new Error(`not a reply to ${request}: ${text(frame)}`)
    return text(frame)
  },
  failed: (reply) => reply[1] !== '0',
  needsCleanChannel: (request) => request === 'p',
  replyTimeoutMs: () => 1_000,
}

const defaults: SessionOptions = {
  service: service as Service<unknown, unknown>,
  remote: 'guest',
  dialMs: 500,
  greetingMs: 400,
  pace: { budgetMs: 3_000, minDelayMs: 10, maxDelayMs: 100, random: () => 0 },
  queue: { limit: 2 },
}

const bytes = (s: string) => Uint8Array.from(Buffer.from(s))
const text = (b: Uint8Array) => Buffer.from(b).toString()

/** A machine and its time, with effects written as words. */
class Session {
  readonly machine: SessionMachine
  now = 0
  errors: Error[] = []

  constructor(options: Partial<SessionOptions> = {}) {
    this.machine = new SessionMachine({ ...defaults, ...options }, 0)
  }

  tell(event: OutsideEvent): string[] {
    return this.machine.step(event, this.now).map((effect) => this.#word(effect))
  }

  request(request: string, id: number, deadline = Number.POSITIVE_INFINITY): string[] {
    const ticket: Ticket = {
      id,
      request,
      bytes: service.encode(request, new Uint8Array(4)),
      op: `ask ${request}`,
      needsClean: service.needsCleanChannel!(request),
      replyTimeoutMs: 1_000,
      deadline,
    }
    return this.tell({ type: 'request', ticket })
  }

  chunk(conn: number, s: string): string[] {
    return this.tell({ type: 'bytes', conn, chunk: bytes(s) })
  }

  /** Waits until the machine wants to be woken. */
  wake(): string[] {
    this.now = this.machine.wakeAt
    return this.tell({ type: 'wake' })
  }

  /** Connects, as connection `conn`. */
  connect(conn = 1): this {
    if (conn === 1) this.tell({ type: 'wake' })
    this.tell({ type: 'dialed', conn })
    this.chunk(conn, 'HELO')
    return this
  }

  /** Connects again, as connection `conn`. */
  reconnect(conn: number): string[] {
    this.wake()
    this.tell({ type: 'dialed', conn })
    return this.chunk(conn, 'HELO')
  }

  #word(effect: Effect): string {
    switch (effect.type) {
      case 'dial':
      case 'drop':
        return `${effect.type} ${effect.conn}`
      case 'write':
        return `write ${effect.conn} ${text(effect.bytes)}`
      case 'reply':
        return `reply ${effect.id} ${effect.reply}`
      case 'fail':
        this.errors.push(effect.error)
        return `fail ${effect.id} ${effect.error.code} ${effect.error.outcome}`
      case 'state':
        return `${effect.previous} → ${effect.state}`
      case 'reconnect':
        return `reconnect ${effect.attempt} in ${effect.delayMs} (${effect.reason})`
    }
  }
}

describe('the way to ready', () => {
  test('dial, service byte, greeting', () => {
    const s = new Session()
    expect(s.machine.state).toBe('WaitingServer')
    expect(s.tell({ type: 'wake' })).toEqual(['dial 1'])
    expect(s.tell({ type: 'dialed', conn: 1 })).toEqual(['write 1 x', 'WaitingServer → WaitingService'])
    expect(s.chunk(1, 'HE')).toEqual([])
    expect(s.chunk(1, 'LO')).toEqual(['WaitingService → ServiceConnected'])
    expect(s.machine.wakeAt).toBe(Number.POSITIVE_INFINITY)
  })

  test('what waited is sent as soon as the service has greeted, and both states are told', () => {
    const s = new Session()
    s.tell({ type: 'wake' })
    expect(s.request('a', 1)).toEqual([])
    s.tell({ type: 'dialed', conn: 1 })
    expect(s.chunk(1, 'HELO')).toEqual(['WaitingService → ServiceConnected', 'write 1 ra__', 'ServiceConnected → ServiceBusy'])
  })

  test.each<[string, (s: Session) => string[], string]>([
    ['a dial that fails', (s) => s.tell({ type: 'dialFailed', conn: 1, error: new Error('no'), final: false }), 'dial-failed'],
    ['a dial that takes too long', (s) => s.wake().filter((word) => word !== 'drop 1'), 'dial-timeout'],
  ])('%s is tried again', (_name, fail, reason) => {
    const s = new Session()
    s.tell({ type: 'wake' })
    expect(fail(s)).toEqual([`reconnect 1 in 10 (${reason})`])
    expect(s.wake()).toEqual(['dial 2'])
  })

  test.each<[string, (s: Session) => string[], string]>([
    ['an end instead of a greeting', (s) => s.tell({ type: 'ended', conn: 1 }), 'disconnected'],
    ['a service byte that could not be written', (s) => s.tell({ type: 'unsent', conn: 1 }), 'disconnected'],
    ['a wrong greeting', (s) => s.chunk(1, 'GARB'), 'protocol'],
    ['a greeting and more', (s) => s.chunk(1, 'HELO?'), 'protocol'],
    ['a greeting that does not come', (s) => s.wake(), 'greeting-timeout'],
  ])('%s drops the connection and is tried again', (_name, fail, reason) => {
    const s = new Session()
    s.tell({ type: 'wake' })
    s.tell({ type: 'dialed', conn: 1 })
    expect(fail(s)).toEqual(['drop 1', `reconnect 1 in 10 (${reason})`, 'WaitingService → WaitingServer'])
    expect(s.wake()).toEqual(['dial 2'])
  })

  test('deadlines are counted from the step they are for', () => {
    const s = new Session()
    s.tell({ type: 'wake' })
    expect(s.machine.wakeAt).toBe(500)
    s.now = 300
    s.tell({ type: 'dialed', conn: 1 })
    expect(s.machine.wakeAt).toBe(700)
    s.now = 699
    expect(s.tell({ type: 'wake' })).toEqual([])
  })

  test('what a dropped connection still says means nothing', () => {
    const s = new Session().connect()
    s.tell({ type: 'ended', conn: 1 })
    s.wake()
    for (const late of [
      { type: 'bytes', conn: 1, chunk: bytes('HELO') },
      { type: 'ended', conn: 1 },
      { type: 'dialed', conn: 1 },
      { type: 'dialFailed', conn: 1, error: undefined, final: true },
      { type: 'unsent', conn: 1 },
    ] as const) {
      expect(s.tell(late)).toEqual([])
    }
    expect(s.machine.state).toBe('WaitingServer')
  })
})

describe('requests', () => {
  test('one is under way, the others wait in order', () => {
    const s = new Session().connect()
    expect(s.request('a', 1)).toEqual(['write 1 ra__', 'ServiceConnected → ServiceBusy'])
    expect(s.request('b', 2)).toEqual([])
    expect(s.request('c', 3)).toEqual([])
    expect(s.request('d', 4)).toEqual(['fail 4 QUEUE_FULL not-sent'])
    expect(s.chunk(1, 'a0')).toEqual([])
    expect(s.chunk(1, '__')).toEqual([
      'reply 1 a0__',
      'ServiceBusy → ServiceConnected',
      'write 1 rb__',
      'ServiceConnected → ServiceBusy',
    ])
    expect(s.chunk(1, 'b0__')).toContain('write 1 rc__')
    expect(s.chunk(1, 'c1__')).toEqual(['reply 3 c1__', 'ServiceBusy → ServiceConnected'])
  })

  test("with queue 'busy' there is one in all, before the connection too", () => {
    const s = new Session({ queue: 'busy' })
    s.tell({ type: 'wake' })
    expect(s.request('a', 1)).toEqual([])
    expect(s.request('b', 2)).toEqual(['fail 2 BUSY not-sent'])
    s.connect()
    expect(s.machine.state).toBe('ServiceBusy')
    expect(s.request('c', 3)).toEqual(['fail 3 BUSY not-sent'])
    s.chunk(1, 'a0__')
    expect(s.request('d', 4)).toContain('write 1 rd__')
  })

  test('a limit of 0 still lets one through when the session is ready', () => {
    const s = new Session({ queue: { limit: 0 } })
    s.tell({ type: 'wake' })
    expect(s.request('a', 1)).toEqual(['fail 1 QUEUE_FULL not-sent'])
    s.connect()
    expect(s.request('b', 2)).toContain('write 1 rb__')
  })

  test.each<[string, (s: Session) => string[], string, string]>([
    ['a reply to something else', (s) => s.chunk(1, 'z0__'), 'PROTOCOL', 'protocol'],
    ['an end before the reply', (s) => s.tell({ type: 'ended', conn: 1 }), 'DISCONNECTED', 'disconnected'],
    ['a reply that does not come', (s) => s.wake(), 'TIMEOUT', 'request-timeout'],
    ['an abort after the write', (s) => s.tell({ type: 'abort', id: 1, reason: 'enough' }), 'ABORTED', 'request-aborted'],
  ])('%s is indeterminate and closes the channel; what waits goes out on the next', (_name, fail, code, reason) => {
    const s = new Session().connect()
    s.request('a', 1)
    s.request('b', 2)
    expect(fail(s)).toEqual([
      `fail 1 ${code} indeterminate`,
      'drop 1',
      `reconnect 1 in 10 (${reason})`,
      'ServiceBusy → WaitingServer',
    ])
    expect(s.reconnect(2)).toContain('write 2 rb__')
  })

  test('an end inside the reply says how far it came', () => {
    const s = new Session().connect()
    s.request('a', 1)
    s.chunk(1, 'a0_')
    expect(s.tell({ type: 'ended', conn: 1 })).toContain('fail 1 DISCONNECTED indeterminate')
    expect(s.errors[0]!.message).toBe(
      'ask a guest: the connection ended after 3 of 4 bytes of the reply. The guest may have done it: look before you repeat it.',
    )
  })

  test('bytes after a reply spoil the channel but not the reply', () => {
    const s = new Session().connect()
    s.request('a', 1)
    expect(s.chunk(1, 'a0__!')).toEqual(['reply 1 a0__', 'drop 1', 'reconnect 1 in 10 (protocol)', 'ServiceBusy → WaitingServer'])
  })

  test('bytes that no request asked for make a new connection', () => {
    const s = new Session().connect()
    expect(s.chunk(1, '!')).toEqual(['drop 1', 'reconnect 1 in 10 (protocol)', 'ServiceConnected → WaitingServer'])
  })

  test('an end while idle is noticed', () => {
    const s = new Session().connect()
    expect(s.tell({ type: 'ended', conn: 1 })).toEqual([
      'drop 1',
      'reconnect 1 in 10 (disconnected)',
      'ServiceConnected → WaitingServer',
    ])
  })

  test('a write that was not begun puts the request back in front', () => {
    const s = new Session().connect()
    s.request('a', 1)
    s.request('b', 2)
    expect(s.tell({ type: 'unsent', conn: 1 })).toEqual([
      'drop 1',
      'reconnect 1 in 10 (disconnected)',
      'ServiceBusy → WaitingServer',
    ])
    expect(s.reconnect(2)).toContain('write 2 ra__')
  })

  test('a waiting request can be aborted or run out of time, and nothing else changes', () => {
    const s = new Session().connect()
    s.request('a', 1)
    s.request('b', 2, 50)
    s.request('c', 3)
    expect(s.machine.wakeAt).toBe(50)
    expect(s.wake()).toEqual(['fail 2 TIMEOUT not-sent'])
    expect(s.tell({ type: 'abort', id: 3, reason: 'enough' })).toEqual(['fail 3 ABORTED not-sent'])
    expect(s.errors.at(-1)!.cause).toBe('enough')
    expect(s.machine.state).toBe('ServiceBusy')
    expect(s.tell({ type: 'abort', id: 3, reason: 'again' })).toEqual([])
  })

  test('one whose time ran out meanwhile is not sent when its turn comes', () => {
    const s = new Session().connect()
    s.request('a', 1)
    s.request('b', 2, 50)
    s.now = 50
    expect(s.chunk(1, 'a0__')).toEqual(['fail 2 TIMEOUT not-sent', 'reply 1 a0__', 'ServiceBusy → ServiceConnected'])
  })

  test("the caller's deadline counts when it is earlier than the reply's", () => {
    const s = new Session().connect()
    s.request('a', 1, 700)
    expect(s.machine.wakeAt).toBe(700)
    expect(s.wake()).toContain('fail 1 TIMEOUT indeterminate')
    expect(s.errors[0]!.message).toContain("no reply within the caller's time limit")
  })

  test('the reply deadline runs from the write', () => {
    const s = new Session()
    s.tell({ type: 'wake' })
    s.request('a', 1)
    s.now = 450
    s.tell({ type: 'dialed', conn: 1 })
    s.now = 600
    s.chunk(1, 'HELO')
    expect(s.machine.wakeAt).toBe(1_600)
  })
})

describe('a clean channel', () => {
  test('a request that needs one gets a new connection after any failed reply, at once', () => {
    const s = new Session().connect()
    s.request('a', 1)
    s.chunk(1, 'a1__')
    expect(s.request('p', 2)).toEqual([
      'drop 1',
      'reconnect 0 in 0 (clean-channel)',
      'dial 2',
      'ServiceConnected → WaitingServer',
    ])
    s.tell({ type: 'dialed', conn: 2 })
    expect(s.chunk(2, 'HELO')).toContain('write 2 rp__')
    s.chunk(2, 'p0__')
    expect(s.request('p', 3)).toContain('write 2 rp__')
  })

  test('the bit stays through later successes', () => {
    const s = new Session().connect()
    s.request('a', 1)
    s.chunk(1, 'a1__')
    s.request('b', 2)
    s.chunk(1, 'b0__')
    expect(s.request('p', 3)).toContain('dial 2')
  })

  test('the others do not need one', () => {
    const s = new Session().connect()
    s.request('a', 1)
    s.chunk(1, 'a1__')
    expect(s.request('b', 2)).toContain('write 1 rb__')
  })

  test('it is off budget, and when it fails a whole budget is there', () => {
    const s = new Session().connect()
    s.now = 100_000
    s.request('a', 1)
    s.chunk(1, 'a1__')
    s.request('p', 2)
    expect(s.tell({ type: 'dialFailed', conn: 2, error: new Error('no'), final: false })).toEqual([
      'reconnect 1 in 10 (dial-failed)',
    ])
    expect(s.machine.state).toBe('WaitingServer')
  })
})

describe('giving up', () => {
  test('a final dial error ends it: waiting requests are not-sent, later ones too, reconnect() starts again', () => {
    const s = new Session()
    s.tell({ type: 'wake' })
    s.request('a', 1)
    const error = new Error('no such thing')
    expect(s.tell({ type: 'dialFailed', conn: 1, error, final: true })).toEqual([
      'fail 1 UNREACHABLE not-sent',
      'WaitingServer → ReconnectError',
    ])
    expect(s.machine.cause).toBe(error)
    expect(s.request('b', 2)).toEqual(['fail 2 UNREACHABLE not-sent'])
    expect(s.errors.map(({ cause }) => cause)).toEqual([error, error])
    expect(s.tell({ type: 'wake' })).toEqual([])
    expect(s.tell({ type: 'reconnect' })).toEqual(['dial 2', 'ReconnectError → WaitingServer'])
    s.connect(2)
    expect(s.machine.state).toBe('ServiceConnected')
  })

  test('the budget ends it while it waits, dials or is not greeted', () => {
    for (const step of ['Due', 'Dialing', 'Greeting'] as const) {
      const s = new Session({
        dialMs: 10_000,
        greetingMs: 10_000,
        pace: { ...defaults.pace!, minDelayMs: 10_000, maxDelayMs: 10_000 },
      })
      s.tell({ type: 'wake' })
      if (step === 'Due') s.tell({ type: 'dialFailed', conn: 1, error: new Error('no'), final: false })
      if (step === 'Greeting') s.tell({ type: 'dialed', conn: 1 })
      expect(s.machine.wakeAt).toBe(3_000)
      expect(s.wake()).toEqual([...(step === 'Due' ? [] : ['drop 1']), expect.stringMatching(/→ ReconnectError$/)])
      const last = { Due: 'no', Dialing: 'no connection so far', Greeting: 'no greeting so far' }[step]
      expect(s.machine.failure?.what).toBe(`unreachable within 3000 ms, last attempt: ${last}`)
      expect(s.machine.cause).toMatchObject({
        code: 'TIMEOUT',
        message: `connect guest: not ready within 3000 ms, last attempt: ${last}. Call reconnect() to try again.`,
      })
      expect(s.request('a', 1)).toEqual(['fail 1 UNREACHABLE not-sent'])
      expect(s.errors[0]!.message).toMatch(`ask a guest: unreachable within 3000 ms, last attempt: ${last}. Nothing was sent.`)
    }
  })

  test('the budget is full again after each ready state', () => {
    const s = new Session()
    for (let conn = 1; conn <= 50; conn++) {
      s.connect(conn)
      expect(s.machine.state).toBe('ServiceConnected')
      s.now += 2_999
      s.tell({ type: 'ended', conn })
      s.wake()
    }
    expect(s.now).toBeGreaterThan(100_000)
    s.now += 2_989
    expect(s.tell({ type: 'wake' })).toContain('drop 51')
    expect(s.machine.state).toBe('WaitingServer')
    s.now += 1
    s.tell({ type: 'wake' })
    expect(s.machine.state).toBe('ReconnectError')
  })

  test('without reconnecting, the first failure is the end', () => {
    const s = new Session({ pace: undefined }).connect()
    s.request('a', 1)
    s.request('b', 2)
    expect(s.tell({ type: 'ended', conn: 1 })).toEqual([
      'fail 1 DISCONNECTED indeterminate',
      'drop 1',
      'fail 2 UNREACHABLE not-sent',
      'ServiceBusy → ReconnectError',
    ])
  })
})

describe('the pace', () => {
  test('a guest that greets and hangs up is called less and less often', () => {
    const s = new Session()
    s.connect()
    expect(s.tell({ type: 'ended', conn: 1 })[1]).toMatch(/^reconnect 1 /)
    s.wake()
    s.connect(2)
    expect(s.tell({ type: 'ended', conn: 2 })[1]).toMatch(/^reconnect 2 /)
  })

  test.each<[string, (s: Session) => unknown]>([
    ['a reply', (s) => [s.request('a', 1), s.chunk(2, 'a0__')]],
    ['lasting as long as the greatest delay', (s) => (s.now += 100)],
  ])('%s proves a connection, and the count begins again', (_name, prove) => {
    const s = new Session()
    s.tell({ type: 'wake' })
    s.tell({ type: 'dialFailed', conn: 1, error: undefined, final: false })
    s.wake()
    s.connect(2)
    prove(s)
    expect(s.tell({ type: 'ended', conn: 2 })[1]).toMatch(/^reconnect 1 /)
  })

  test('reconnect() does not wait for the next attempt', () => {
    const s = new Session()
    s.tell({ type: 'wake' })
    s.tell({ type: 'dialFailed', conn: 1, error: undefined, final: false })
    expect(s.tell({ type: 'reconnect' })).toEqual(['dial 2'])
    expect(s.tell({ type: 'reconnect' })).toEqual([])
  })
})

describe('closing', () => {
  test.each<[string, (s: Session) => void, string[]]>([
    ['before the first dial', () => {}, ['WaitingServer → Closed']],
    ['while it dials', (s) => s.tell({ type: 'wake' }), ['drop 1', 'WaitingServer → Closed']],
    ['when ready', (s) => s.connect(), ['drop 1', 'ServiceConnected → Closed']],
    [
      'with requests',
      (s) => {
        s.connect()
        s.request('a', 1)
        s.request('b', 2)
      },
      ['fail 1 CLOSED indeterminate', 'drop 1', 'fail 2 CLOSED not-sent', 'ServiceBusy → Closed'],
    ],
    [
      'after it gave up',
      (s) => [s.tell({ type: 'wake' }), s.tell({ type: 'dialFailed', conn: 1, error: 0, final: true })],
      ['ReconnectError → Closed'],
    ],
  ])('%s', (_name, prepare, effects) => {
    const s = new Session()
    prepare(s)
    expect(s.tell({ type: 'close' })).toEqual(effects)
    expect(s.tell({ type: 'close' })).toEqual([])
    expect(s.request('z', 9)).toEqual(['fail 9 CLOSED not-sent'])
    for (const type of ['wake', 'reconnect'] as const) expect(s.tell({ type })).toEqual([])
    expect(s.machine.wakeAt).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('the table', () => {
  test('an event that cannot happen throws and leaves the session alone', () => {
    const s = new Session().connect()
    expect(() => s.tell({ type: 'dialed', conn: 1 })).toThrow('the event dialed cannot happen in the state Ready')
    expect(() => s.tell({ type: 'dialFailed', conn: 1, error: 0, final: true })).toThrow('cannot happen')
    expect(s.request('a', 1)).toContain('write 1 ra__')
  })

  test('a request, an abort, time, reconnect() and close() can come in every state', () => {
    for (const row of Object.values(table))
      expect(Object.keys(row)).toEqual(expect.arrayContaining(['request', 'abort', 'wake', 'reconnect', 'close']))
  })
})

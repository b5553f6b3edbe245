import { encodeConnect, encodeReply, encodeRequest } from '@upcall/wire'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Conversation, type ConversationEvent, type ConversationOptions } from './conversation.js'
import type { Direction } from './framer.js'

const addPci = encodeRequest({ type: 'ADD_PCI', bus: 0, devfn: 0x28 }, 'x86_64')
const refusal = encodeReply({ type: 'ADD_PCI', result: -19 }, 'x86_64')
const text = (words: string) => Buffer.from(words, 'latin1')

/** What the events say, in short. */
function shapes(events: ConversationEvent[]): string[] {
  return events.map((event) =>
    event.type === 'state' ? `= ${event.state}` : `${event.direction === 'to-guest' ? '>' : '<'} ${shape(event)}`,
  )
}

function shape(event: ConversationEvent): string {
  const rtt = 'rttMs' in event && event.rttMs !== undefined ? ` ${event.rttMs} ms` : ''
  if (event.type === 'handshake') return event.text + rtt
  if (event.type === 'service') return `service ${event.byte}`
  if (event.type === 'message') return `${event.title}${rtt}${event.wrong === undefined ? '' : ` !${event.wrong}`}`
  if (event.type === 'data') return `data ${Buffer.from(event.bytes)}`
  if ('what' in event) return `${event.type} ${event.offset}+${event.bytes.length}`
  return 'unanswered' in event ? `end ${event.unanswered} unanswered` : 'end'
}

type Step = [direction: Direction, bytes: Uint8Array | 'end', now: number]

function play(steps: Step[], options?: ConversationOptions): ConversationEvent[] {
  const conversation = new Conversation(options)
  return steps.flatMap(([direction, bytes, now]) =>
    bytes === 'end' ? conversation.end(direction, now) : conversation.feed(direction, bytes, now),
  )
}

const session: Step[] = [
  ['to-guest', text('CONNECT 219\n'), 1],
  ['to-host', text('OK 1073741824\n'), 3],
  ['to-guest', text('d'), 4],
  ['to-host', encodeConnect(), 9],
  ['to-guest', addPci, 10],
  ['to-host', refusal, 17],
  ['to-guest', 'end', 20],
  ['to-host', 'end', 21],
]

test('a session: handshake, service, greeting, request, reply, with times and states', () => {
  expect(shapes(play(session))).toEqual([
    '> CONNECT 219',
    '< OK 1073741824 2 ms',
    '> service 100',
    '= Greeting',
    '< CONNECT  the greeting 5 ms',
    '= Ready',
    '> ADD_PCI  00:05.0',
    '= Busy',
    '< ADD_PCI  -19 ENODEV 7 ms',
    '= Ready',
    '> end',
    '< end',
    '= Closed',
  ])
})

test('without a handshake, with everything in one chunk, and with two requests at once', () => {
  const two = Buffer.concat([text('d'), addPci, addPci])
  const events = play([
    ['to-guest', two, 0],
    ['to-host', Buffer.concat([encodeConnect(), refusal]), 5],
    ['to-host', refusal, 8],
  ])
  expect(shapes(events).filter((each) => !each.startsWith('='))).toEqual([
    '> service 100',
    '> ADD_PCI  00:05.0',
    '> ADD_PCI  00:05.0',
    '< CONNECT  the greeting 5 ms',
    '< ADD_PCI  -19 ENODEV 5 ms',
    '< ADD_PCI  -19 ENODEV 8 ms',
  ])
})

test('how the bytes are chunked does not matter', () => {
  const bytes: [Direction, Buffer][] = [
    ['to-guest', Buffer.concat([text('CONNECT 219\nd'), addPci, Buffer.alloc(70, 0xee), addPci, text('rest')])],
    ['to-host', Buffer.concat([text('OK 5\n'), encodeConnect(), refusal, text('odd'), refusal])],
  ]
  const whole = new Conversation()
  const expected = bytes.flatMap(([direction, all]) => [...whole.feed(direction, all, 0), ...whole.end(direction, 0)])
  expect(expected.filter(({ type }) => type === 'garbage')).toHaveLength(3)
  const cuts = fc.array(fc.integer({ min: 1, max: 1500 }), { minLength: 1, maxLength: 20 })
  fc.assert(
    fc.property(cuts, (sizes) => {
      const conversation = new Conversation()
      const events = bytes.flatMap(([direction, all]) => {
        const found: ConversationEvent[] = []
        for (let at = 0, i = 0; at < all.length; i++) {
          const size = sizes[i % sizes.length]!
          found.push(...conversation.feed(direction, all.subarray(at, at + size), 0))
          at += size
        }
        return [...found, ...conversation.end(direction, 0)]
      })
      expect(events).toEqual(expected)
    }),
    { numRuns: 50 },
  )
})

test('a message whose magic is wrong is a message, with the byte that is wrong', () => {
  const wrong = Buffer.from(addPci)
  wrong[1] = 2
  const events = play([...session.slice(0, 4), ['to-guest', wrong, 10]])
  expect(events.at(-2)).toMatchObject({ type: 'message', wrong: 'magic_version: byte 1 is 0x02 and not 0x01', wrongAt: 1 })
})

test('bytes between messages are garbage, and the next magic begins a message', () => {
  const events = play([...session.slice(0, 4), ['to-guest', Buffer.concat([text('odd'), addPci]), 10]])
  expect(shapes(events).slice(6)).toEqual(['> garbage 13+3', '> ADD_PCI  00:05.0', '= Busy'])
})

test('a reply that nothing asked for, one of another type, and a reply for a greeting', () => {
  expect(shapes(play([...session.slice(0, 4), ['to-host', refusal, 10]])).at(-1)).toContain('!there is no request')
  const other = encodeReply({ type: 'ADD_MMIO', result: 0 }, 'x86_64')
  expect(shapes(play([...session.slice(0, 5), ['to-host', other, 12]])).at(-2)).toContain('!a reply to ADD_PCI was due')
  expect(shapes(play([...session.slice(0, 3), ['to-host', other, 12]])).at(-2)).toContain(
    '!ADD_MMIO came where the greeting was due',
  )
})

test('an end inside a message, and requests that have no reply', () => {
  const events = play([
    ...session.slice(0, 5),
    ['to-host', refusal.subarray(0, 100), 12],
    ['to-host', 'end', 13],
    ['to-host', 'end', 14],
  ])
  expect(shapes(events).slice(8)).toEqual(['< cut 1038+100', '< end 1 unanswered', '= Closed'])
})

test('CPU requests tell the architecture to the replies', () => {
  const events = play([
    ...session.slice(0, 4),
    ['to-guest', encodeRequest({ type: 'ADD_CPU', count: 2 }, 'aarch64'), 10],
    ['to-host', encodeReply({ type: 'ADD_CPU', result: 0, cpuId: 4 }, 'aarch64'), 11],
  ])
  expect(shapes(events).at(-2)).toBe('< ADD_CPU  0, 4 CPUs online 1 ms')
})

test.each<[string, Step[], string[]]>([
  [
    'another service',
    [
      ['to-guest', text('xyz'), 0],
      ['to-host', text('hello'), 1],
    ],
    ['> service 120', '> data yz', '< data hello'],
  ],
  [
    'a peer that speaks first',
    [
      ['to-host', text('SSH-2.0\n'), 0],
      ['to-guest', text('hi'), 1],
    ],
    ['< data SSH-2.0\n', '> data hi'],
  ],
  [
    'another port',
    [
      ['to-guest', text('CONNECT 22\nhello'), 0],
      ['to-host', text('OK 7\nSSH'), 1],
    ],
    ['> CONNECT 22', '> data hello', '< OK 7 1 ms', '< data SSH'],
  ],
])('%s is not looked into', (_name, steps, expected) => expect(shapes(play(steps))).toEqual(expected))

test('upcall on another port is recognised', () => {
  const moved: Step[] = [['to-guest', text('CONNECT 1000\n'), 1], ...session.slice(1)]
  expect(shapes(play(moved)).slice(1)).toEqual(shapes(play(session)).slice(1))
})

test('raw: the bytes as they come, after a handshake', () => {
  const steps: Step[] = [
    ['to-guest', text('CONNECT 80\nGET /'), 0],
    ['to-host', text('OK 1\n'), 1],
    ['to-host', text('HTTP'), 2],
    ['to-host', 'end', 3],
  ]
  expect(shapes(play(steps, { raw: true }))).toEqual([
    '> CONNECT 80',
    '> data GET /',
    '< OK 1 1 ms',
    '< data HTTP',
    '< end',
    '= Closed',
  ])
})

test('midway: from the next magic on', () => {
  const steps: Step[] = [
    ['to-host', Buffer.concat([refusal.subarray(500), refusal]), 1],
    ['to-guest', addPci, 2],
  ]
  expect(shapes(play(steps, { midway: true }))).toEqual([
    '< garbage 0+524',
    '< ADD_PCI  -19 ENODEV',
    '= Ready',
    '> ADD_PCI  00:05.0',
    '= Busy',
  ])
})

test('a client that sends without end and without a reply costs a bounded memory, and is still counted', () => {
  const conversation = new Conversation()
  conversation.feed('to-guest', text('d'), 0)
  conversation.feed('to-host', encodeConnect(), 0)
  for (let i = 0; i < 1030; i++) conversation.feed('to-guest', addPci, i)
  const replies = Array.from({ length: 1029 }, () => conversation.feed('to-host', refusal, 2000)[0])
  expect(replies[1023]).toMatchObject({ rttMs: 2000 - 1023 })
  expect(replies[1024]).not.toHaveProperty('rttMs')
  expect(replies[1028]).not.toHaveProperty('wrong')
  expect(conversation.end('to-host', 1)[0]).toMatchObject({ type: 'end', unanswered: 1 })
})

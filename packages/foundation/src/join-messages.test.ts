import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { messagePair, type PairedSocket } from '../testing/message-pair.js'
import { joinMessages } from './join-messages.js'

/** Two programs, and the join between them. */
function joined() {
  const [left, a] = messagePair()
  const [right, b] = messagePair()
  return { left, right, a, b, done: joinMessages(a, b) }
}

const bytes = (text: string) => new TextEncoder().encode(text)
const code = (promise: Promise<unknown>) =>
  promise.then(
    () => 'done',
    (error: NodeJS.ErrnoException) => error.code,
  )

async function readAll(socket: PairedSocket): Promise<string[]> {
  const all: string[] = []
  for await (const data of socket) all.push(new TextDecoder().decode(data))
  return all
}

describe('joined message sockets', () => {
  test('pass messages on whole, with MSG_EOR, both ways', async () => {
    const { left, right } = joined()
    await Promise.all([left.send(bytes('a'), { eor: true }), right.send(bytes('bb'))])
    expect(await right.receive()).toEqual({ data: bytes('a'), eor: true, sentBytes: 1 })
    expect(await left.receive()).toEqual({ data: bytes('bb'), eor: false, sentBytes: 2 })
  })

  test('tell how many bytes each direction has carried', async () => {
    const { left, right, done } = joined()
    const sent = [left.send(bytes('three')), left.send(bytes('four')), right.send(bytes('ok'))]
    const read = [readAll(right), readAll(left)]
    await Promise.all(sent)
    left.end()
    right.end()
    expect(await Promise.all(read)).toEqual([['three', 'four'], ['ok']])
    expect(await done).toEqual({ aToB: 9, bToA: 2 })
  })

  test('leave an empty message out, which no other transport carries', async () => {
    const { a, right } = joined()
    a.arrive({ message: { data: bytes(''), eor: false, sentBytes: 0 }, taken: () => {} })
    a.arrive({ message: { data: bytes('after'), eor: false, sentBytes: 5 }, taken: () => {} })
    expect((await right.receive())?.data).toEqual(bytes('after'))
  })

  test('hold one message in each direction, and no more', async () => {
    const { left, right } = joined()
    const sends = ['a', 'b', 'c'].map((text) => {
      const it = { done: false }
      void left.send(bytes(text)).then(() => (it.done = true))
      return it
    })
    await turn()
    expect(sends.map(({ done }) => done)).toEqual([true, false, false])
    await right.receive()
    await turn()
    expect(sends.map(({ done }) => done)).toEqual([true, true, false])
  })

  test('pass an end on after everything, and leave the way back open', async () => {
    const { left, right, done } = joined()
    void left.send(bytes('last'))
    left.end()
    expect(await readAll(right)).toEqual(['last'])
    void right.send(bytes('answer'))
    right.end()
    expect(await readAll(left)).toEqual(['answer'])
    await done
    await Promise.all([left.closed, right.closed])
    expect([left.errored, right.errored]).toEqual([null, null])
  })

  test('a socket that fails breaks the other off, after what it had sent', async () => {
    const { right, a, b, done } = joined()
    a.arrive({ message: { data: bytes('x'), eor: false, sentBytes: 1 }, taken: () => {} })
    await turn()
    a.destroy(Object.assign(new Error('cable'), { code: 'CABLE' }))
    await turn()
    expect(b.errored).toBeNull()
    expect(await right.receive()).toMatchObject({ data: bytes('x') })
    await done
    expect(b.errored).toMatchObject({ code: 'CABLE' })
  })

  test('a socket that takes no more is still read to its end, and what was dropped is told to the other', async () => {
    const { left, right, a, b, done } = joined()
    right.refuses = Object.assign(new Error('no more'), { code: 'EPIPE' })
    await left.send(bytes('lost'))
    await left.send(bytes('lost, too'))
    void right.send(bytes('still here'))
    expect(await left.receive()).toMatchObject({ data: bytes('still here') })
    right.end()
    expect(await readAll(left)).toEqual([])
    b.destroy()
    await done
    expect(a.errored).toMatchObject({ code: 'EPIPE' })
  })

  test('a socket that has closed after its end closes the other', async () => {
    const { left, right, a, b, done } = joined()
    right.end()
    expect(await readAll(left)).toEqual([])
    b.destroy()
    await done
    await a.closed
    expect(a.errored).toBeNull()
  })

  test.each([
    ['is too long for the other side', (it: ReturnType<typeof joined>) => (it.b.maxMessageBytes = 3), 4],
    ['was cut when it was received', () => {}, 9],
  ] as const)('a message that %s breaks both off', async (_name, before, sentBytes) => {
    const it = joined()
    before(it)
    it.a.arrive({ message: { data: bytes('long'), eor: false, sentBytes }, taken: () => {} })
    await it.done
    expect(await code(it.right.receive())).toBe('ECONNRESET')
    expect([it.a.errored, it.b.errored]).toMatchObject([{ code: 'EMSGSIZE' }, { code: 'EMSGSIZE' }])
  })
})

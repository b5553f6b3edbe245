import { settle } from '@upcall/foundation/testing/manual-clock'
import { encodeConnect, encodeReply, encodeRequest } from '@upcall/wire'
import { expect, it } from 'vitest'
import { dialSequence, faultyDial } from './dial.js'
import type { FakeConnection } from './fake-connection.js'
import { fakeGuest } from './fake-guest.js'

const { signal } = new AbortController()
const request = { type: 'ADD_PCI', bus: 0, devfn: 40 } as const

function received(stream: NodeJS.ReadableStream): Buffer[] {
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  return chunks
}

it('a function plays the guest', async () => {
  const guest = fakeGuest(async (connection) => {
    expect(await connection.readService()).toBe(0x64)
    await connection.greet()
    expect(await connection.readRequest()).toEqual(request)
    await connection.reply({ type: 'ADD_PCI', result: 0 })
  })
  const stream = await guest.dial({ signal })
  const chunks = received(stream)
  stream.write('d')
  await settle()
  stream.write(encodeRequest(request, 'x86_64'))
  await settle()
  expect(Buffer.concat(chunks)).toEqual(Buffer.concat([encodeConnect(), encodeReply({ type: 'ADD_PCI', result: 0 }, 'x86_64')]))
  expect(guest.connections[0]!.chunks).toEqual([1, 1024])
  await guest.close()
})

it('a generator plays the guest', async () => {
  const guest = fakeGuest(async function* (connection: FakeConnection) {
    await connection.readService()
    yield encodeConnect()
    const { type } = await connection.readRequest()
    yield Buffer.from(type)
  })
  const stream = await guest.dial({ signal })
  const chunks = received(stream)
  stream.write('d')
  stream.write(encodeRequest(request, 'x86_64'))
  await settle()
  expect(String(chunks[1])).toBe('ADD_PCI')
  await guest.close()
})

it('each connection has its script, the last one serves all further ones', async () => {
  const guest = fakeGuest([
    (connection) => connection.write(Buffer.from('a')),
    (connection) => connection.write(Buffer.from('b')),
  ])
  const chunks = []
  for (let i = 0; i < 3; i++) chunks.push(received(await guest.dial({ signal })))
  await settle()
  expect(chunks.map(String)).toEqual(['a', 'b', 'b'])
  expect(guest.connections.map(({ number }) => number)).toEqual([1, 2, 3])
  await guest.close()
})

it('close() reports a script that failed, which the client sees as a close', async () => {
  const guest = fakeGuest(async (connection) => {
    expect(await connection.readService()).toBe(0)
  })
  const stream = await guest.dial({ signal })
  let ended = false
  stream.on('end', () => {
    ended = true
  })
  stream.resume()
  stream.write('d')
  await settle()
  expect(ended).toBe(true)
  await expect(guest.close()).rejects.toThrow('expected 100 to be +0')
})

it('a client that leaves in the middle is not a failure of the script', async () => {
  const guest = fakeGuest(async (connection) => {
    await connection.readMessage()
  })
  const stream = await guest.dial({ signal })
  stream.write('half')
  stream.end()
  await settle()
  await guest.close()
})

it('silence lasts until the client leaves', async () => {
  let left = false
  const guest = fakeGuest(async (connection) => {
    await connection.silence()
    left = true
  })
  const stream = await guest.dial({ signal })
  await settle()
  expect(left).toBe(false)
  stream.on('error', () => {}).destroy(new Error('leaving'))
  await settle()
  expect(left).toBe(true)
  await guest.close()
})

it('dials in a sequence', async () => {
  const guest = fakeGuest(() => {})
  const refused = new Error('refused')
  const dial = dialSequence(refused, 'silence', guest.dial)
  await expect(dial({ signal })).rejects.toBe(refused)
  const reason = new Error('too slow')
  await expect(dial({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  await dial({ signal })
  await dial({ signal })
  expect(dial.attempts).toBe(4)
  expect(guest.connections).toHaveLength(2)
  await guest.close()
})

it('puts the faults of a plan on the connection of that number', async () => {
  const guest = fakeGuest((connection) => connection.write(Buffer.from('abcdef')))
  const dial = faultyDial(guest.dial, (number) => (number === 2 ? { read: { eofAt: 2 } } : undefined))
  const chunks = [received(await dial({ signal })), received(await dial({ signal }))]
  await settle()
  expect(chunks.map(String)).toEqual(['abcdef', 'ab'])
  expect(dial.streams).toHaveLength(2)
  await guest.close()
})

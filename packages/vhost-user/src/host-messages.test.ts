import { messagePair, type PairedSocket } from '@upcall/foundation/testing/message-pair'
import { describe, expect, test } from 'vitest'
import { world } from '../testing/ends.js'
import { binding, deviceAt, frontEnd } from '../testing/scene.js'
import { SHUTDOWN_SEND, TYPE_SEQPACKET } from './machine/packet.js'

const bytes = (text: string) => new TextEncoder().encode(text)

/** A device that joins every guest with one end of a pair; the programs on the host have the other ends. */
async function joining(options = {}) {
  const programs: PairedSocket[] = []
  const it = await world(() => {
    const [program, host] = messagePair()
    programs.push(program)
    return host
  }, options)
  const connect = async () => {
    const socket = it.guest.connect(80, TYPE_SEQPACKET)
    await it.guest.until(() => socket.state === 'open')
    return { socket, program: programs.at(-1)! }
  }
  return { ...it, connect }
}

describe.runIf(binding !== undefined)('a guest that is joined with a message socket on the host', () => {
  test('exchanges messages with it, and each sees the end of the other', async () => {
    const { guest, device, connect } = await joining()
    const { socket, program } = await connect()
    socket.sendMessage(bytes('ping'), { eor: true })
    const got = program.receive()
    await guest.until(() => socket.sent === 4)
    expect(await got).toMatchObject({ data: bytes('ping'), eor: true })
    void program.send(bytes('pong'))
    program.end()
    await guest.until(() => socket.end === 'shutdown')
    expect(socket.messages).toMatchObject([{ data: Buffer.from('pong') }])
    socket.close()
    await guest.until(() => device.connections === 0)
    expect(await program.receive()).toBeUndefined()
    await program.closed
  })

  test('a guest that is reset breaks it off after what had come', async () => {
    const { guest, device, connect } = await joining()
    const { socket, program } = await connect()
    socket.sendMessage(bytes('one'))
    socket.sendMessage(bytes('two'))
    await guest.until(() => socket.sent === 6)
    socket.reset()
    await guest.until(() => device.connections === 0)
    expect(await program.receive()).toMatchObject({ data: bytes('one') })
    expect(await program.receive()).toMatchObject({ data: bytes('two') })
    await expect(program.receive()).rejects.toMatchObject({ code: 'ECONNRESET' })
  })

  test('a host that fails resets the guest', async () => {
    const { guest, connect } = await joining()
    const { socket, program } = await connect()
    program.other.destroy(new Error('broken'))
    await guest.until(() => socket.end === 'reset')
  })

  test('of those that have a guest that is gone to finish with, so many are kept as there may be connections', async () => {
    const { guest, device, connect } = await joining({ maxConnections: 2 })
    const programs: PairedSocket[] = []
    for (let i = 0; i < 3; i++) {
      const { socket, program } = await connect()
      programs.push(program)
      socket.sendMessage(bytes('one'))
      socket.sendMessage(bytes('two'))
      await guest.until(() => socket.sent === 6)
      socket.close()
      // The second message waits in the device until the program takes the first.
      await guest.rest()
      expect(programs.map(({ other }) => other.errored)).toEqual(Array(i + 1).fill(null))
      socket.reset()
      await guest.until(() => device.connections === 0)
    }
    expect(programs.map(({ other }) => other.errored)).toMatchObject([{ code: 'ECONNRESET' }, null, null])
    for (const program of programs) expect(await program.receive()).toMatchObject({ data: bytes('one') })
    await expect(programs[0]!.receive()).rejects.toMatchObject({ code: 'ECONNRESET' })
    expect(await programs[2]!.receive()).toMatchObject({ data: bytes('two') })
  })

  test('so are those that had ended before, and have the last message yet to take', async () => {
    const { guest, device, connect } = await joining({ maxConnections: 2 })
    const programs: PairedSocket[] = []
    for (let i = 0; i < 3; i++) {
      const { socket, program } = await connect()
      programs.push(program)
      program.end()
      await guest.until(() => socket.end === 'shutdown')
      socket.sendMessage(bytes('one'))
      socket.shutdown(SHUTDOWN_SEND)
      await guest.until(() => device.connections === 0)
    }
    await guest.until(() => programs[0]!.other.errored !== null)
    expect(programs.map(({ other }) => other.errored)).toMatchObject([{ code: 'ECONNRESET' }, null, null])
  })
})

test.runIf(binding !== undefined)('a guest whose driver has no SEQPACKET is not taken for a guest that refuses', async () => {
  const device = await deviceAt()
  const vmm = await frontEnd()
  vmm.features &= ~2n
  await vmm.start()
  await expect(device.connectSeqpacket(5000)).rejects.toMatchObject({ code: 'ESOCKTNOSUPPORT', retryable: false })
  expect(device.connections).toBe(0)
})

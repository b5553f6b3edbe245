import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Duplex, duplexPair, Transform } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setImmediate as turn } from 'node:timers/promises'
import type { MessageSocket } from '@upcall/foundation/message-socket'
import { joinedPair } from '@upcall/foundation/pair'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { catchUncaught } from '@upcall/foundation/testing/uncaught'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, standInForVsock } from '../../testing/addon.js'
import { isVsockError } from '../errors.js'
import * as loader from '../native/loader.js'
import { connectSeqpacket } from '../seqpacket/index.js'
import { notifySystemd } from '../systemd/notify.js'
import { listenNotify, waitForNotify } from './listen.js'
import { NotifyReceiver, type NotifyReceiverOptions, type NotifyRefusal } from './receiver.js'

vi.mock('../native/loader.js', { spy: true })
const addon = addonIfBuilt()

/** A receiver with a clock that stands, and what it refused. */
function receiving(options: NotifyReceiverOptions = {}) {
  const clock = new ManualClock()
  const receiver = new NotifyReceiver({ clock, ...options })
  const refused: NotifyRefusal[] = []
  receiver.on('refused', (refusal) => refused.push(refusal))
  return { clock, receiver, refused, reasons: () => refused.map(({ reason }) => reason) }
}

/** A connection of the guest's; the guest's end. */
function connection(receiver: NotifyReceiver, from = {}): Duplex {
  const [near, far] = joinedPair()
  receiver.receive(near, from)
  return far
}

/** What sd_notify(3) does. Resolves when it has its answer. */
async function notify(receiver: NotifyReceiver, message: string, from = {}): Promise<void> {
  const guest = connection(receiver, from)
  guest.end(message)
  expect(await text(guest)).toBe('')
}

/** A connected SOCK_SEQPACKET socket whose peer sends these, and then ends. `did`: what was done with it. */
function packets(...sent: (string | Error | Promise<never>)[]): MessageSocket & { readonly did: string[] } {
  const did: string[] = []
  const socket: Pick<MessageSocket, 'receive' | 'end' | 'destroy' | 'closed'> = {
    closed: Promise.resolve(),
    async receive() {
      const next = await sent.shift()
      if (next instanceof Error) throw next
      return next === undefined ? undefined : { data: Buffer.from(next), eor: false, sentBytes: next.length }
    },
    end: () => void did.push('end'),
    destroy: () => void did.push('destroy'),
  }
  return Object.assign(socket as MessageSocket, { did })
}

const settled = async () => {
  for (let i = 0; i < 5; i++) await turn()
}

describe('a receiver', () => {
  it('reads one message of each connection, and ends it', async () => {
    const { receiver, refused } = receiving()
    const ready = receiver.ready()
    await notify(receiver, 'X_SYSTEMD_UNIT_ACTIVE=basic.target', { cid: 3, port: 1023 })
    await notify(receiver, 'READY=1\nSTATUS=Ready.', { cid: 3, port: 1022 })
    expect(await ready).toMatchObject({ cid: 3, units: ['basic.target'], messages: 2 })
    expect((await ready).fields.STATUS).toBe('Ready.')
    expect(await receiver.ready()).toBe(await ready)
    expect(refused).toEqual([])
  })

  it('takes a message in pieces, up to its end', async () => {
    const { receiver } = receiving()
    const guest = connection(receiver)
    const message = once(receiver, 'message')
    for (const piece of ['REA', 'DY', '=1\nSTA', 'TUS=x']) {
      guest.write(piece)
      await settled()
      expect(receiver.guests.size).toBe(0)
    }
    guest.end()
    expect({ ...(await message)[0].fields }).toEqual({ READY: '1', STATUS: 'x' })
  })

  it('takes each packet of a socket for messages', async () => {
    const { receiver, refused, clock } = receiving()
    const socket = packets('STATUS=a', 'READY=1')
    receiver.receive(socket, { cid: 3 })
    await settled()
    expect(receiver.guests.get(3)).toMatchObject({ messages: 2 })
    expect(socket.did).toEqual(['end', 'destroy'])
    expect(refused).toEqual([])
    expect(clock.pending).toBe(0)
  })

  it('takes or refuses what a device offers', async () => {
    const { receiver, reasons } = receiving({ privileged: true })
    const [near, far] = joinedPair()
    const offered = (type: 'stream' | 'seqpacket', guestPort: number) => {
      const accept = vi.fn(() => near)
      const acceptSeqpacket = vi.fn(() => packets('STATUS=packet'))
      expect(receiver.accept({ guestCid: 42, guestPort, type, accept, acceptSeqpacket })).toBeUndefined()
      return [accept.mock.calls.length, acceptSeqpacket.mock.calls.length]
    }
    expect(offered('stream', 1024)).toEqual([0, 0])
    expect(reasons()).toEqual(['port'])
    expect(offered('seqpacket', 1023)).toEqual([0, 1])
    expect(offered('stream', 1023)).toEqual([1, 0])
    far.end('READY=1')
    expect(await receiver.ready()).toMatchObject({ cid: 42, messages: 2, fields: { STATUS: 'packet' } })
  })

  it.each([null, 'READY=1', {}])('takes no %j', (connection) => {
    expect(() => receiving().receiver.receive(connection as never)).toThrow(
      'connection: must be a stream, or a socket for messages',
    )
  })

  it.each([
    [undefined, 'incoming: must be an object, got undefined'],
    [{ guestCid: 3, type: 'stream' }, 'incoming.accept: must be a function, got undefined'],
  ])('accepts no %j', (incoming, message) => {
    expect(() => receiving().receiver.accept(incoming as never)).toThrow(message)
  })

  it('answers without the end of the guest after the quiet time', async () => {
    const { receiver, clock } = receiving({ quietMs: 200 })
    const guest = connection(receiver)
    guest.write('READY')
    await settled()
    clock.advance(199)
    guest.write('=1')
    await settled()
    clock.advance(199)
    expect(receiver.guests.size).toBe(0)
    clock.advance(1)
    expect(receiver.guests.get(undefined)).toMatchObject({ messages: 1 })
    await once(guest.resume(), 'end')
    guest.end('STATUS=late')
    await settled()
    expect(receiver.guests.get(undefined)).toMatchObject({ messages: 1 })
    expect(clock.pending).toBe(0)
  })

  it('iterates over messages, those that came before included', async () => {
    const { receiver } = receiving({ maxPending: 2 })
    for (const status of 'abc') await notify(receiver, `STATUS=${status}`)
    const seen: string[] = []
    const done = (async () => {
      for await (const { fields } of receiver) seen.push(fields.STATUS!)
    })()
    await settled()
    expect(seen).toEqual(['b', 'c'])
    await notify(receiver, 'STATUS=d')
    await receiver.close()
    await done
    expect(seen).toEqual(['b', 'c', 'd'])
  })

  it('goes on when a listener throws', async () => {
    using uncaught = catchUncaught()
    const { receiver } = receiving()
    receiver.on('message', () => {
      throw new Error('of the listener')
    })
    await notify(receiver, 'READY=1')
    expect(await receiver.ready()).toMatchObject({ messages: 1 })
    expect(await uncaught.next()).toEqual(new Error('of the listener'))
  })
})

describe('ready', () => {
  const failure = async (promise: Promise<unknown>) => {
    const error = await promise.catch((thrown: unknown) => thrown)
    if (!isVsockError(error)) throw error
    return error
  }

  it('rejects when the guest goes down or fails', async () => {
    const { receiver } = receiving()
    const first = failure(receiver.ready({ cid: 3 }))
    await notify(receiver, 'EXIT_STATUS=7\nX_SYSTEMD_SHUTDOWN=exit', { cid: 3 })
    expect(await first).toMatchObject({
      code: 'GUEST_STOPPED',
      op: 'ready',
      message: 'ready guest 3: it has gone down (EXIT_STATUS=7). Look at the console or the journal of the guest.',
    })
    expect((await first).heard!.fields.EXIT_STATUS).toBe('7')
    await notify(receiver, 'X_SYSTEMD_UNIT_ACTIVE=rescue.target', { cid: 4 })
    expect(await failure(receiver.ready({ cid: 4 }))).toMatchObject({ code: 'GUEST_FAILED', retryable: false })
    receiver.forget(4)
    const second = receiver.ready({ cid: 4 })
    await notify(receiver, 'READY=1', { cid: 4 })
    expect(await second).toMatchObject({ cid: 4 })
  })

  it('waits a second for what follows a READY=1 that came before basic.target', async () => {
    const { receiver, clock } = receiving()
    const emergency = failure(receiver.ready())
    await notify(receiver, 'X_SYSTEMD_SIGNALS_LEVEL=2')
    await notify(receiver, 'READY=1\nSTATUS=Ready.')
    await notify(receiver, 'X_SYSTEMD_UNIT_ACTIVE=emergency.target')
    expect(await emergency).toMatchObject({ code: 'GUEST_FAILED', what: 'its boot ended in emergency.target' })
    expect(clock.pending).toBe(0)

    const other = new NotifyReceiver({ clock })
    const ready = other.ready()
    await notify(other, 'READY=1\nX_SYSTEMD_SIGNALS_LEVEL=2')
    clock.advance(999)
    await notify(other, 'X_SYSTEMD_UNIT_ACTIVE=own.target')
    const late = failure(other.ready({ timeoutMs: 999 }))
    clock.advance(1)
    expect(await ready).toMatchObject({ units: ['own.target'] })
    clock.advance(998)
    expect(await late).toMatchObject({ code: 'ETIMEDOUT' })
    expect(clock.pending).toBe(0)
  })

  it('has a deadline, and says what it heard', async () => {
    const { receiver, clock } = receiving()
    const nothing = failure(receiver.ready({ timeoutMs: 50 }))
    clock.advance(50)
    expect(await nothing).toMatchObject({ code: 'ETIMEDOUT', retryable: true, what: 'no READY=1 within 50 ms; no message came' })
    await notify(receiver, 'STATUS=Waiting for a disk')
    await notify(receiver, 'X_SYSTEMD_UNIT_ACTIVE=local-fs.target')
    const something = failure(receiver.ready())
    clock.advance(60_000)
    expect((await something).what).toBe(
      'no READY=1 within 60000 ms; 2 messages came, last STATUS=Waiting for a disk and X_SYSTEMD_UNIT_ACTIVE=local-fs.target',
    )
    expect(clock.pending).toBe(0)
  })

  it('is given up by a signal, and by close()', async () => {
    const { receiver, clock } = receiving()
    const reason = new Error('enough')
    expect(await failure(receiver.ready({ signal: AbortSignal.abort(reason) }))).toMatchObject({ code: 'ABORTED', cause: reason })
    const cut = new AbortController()
    const waiting = failure(receiver.ready({ signal: cut.signal }))
    cut.abort(reason)
    expect(await waiting).toMatchObject({ code: 'ABORTED', cause: reason })
    const closed = failure(receiver.ready())
    await receiver.close()
    expect(await closed).toMatchObject({ code: 'ECANCELED' })
    expect(await failure(receiver.ready())).toMatchObject({ code: 'ECANCELED' })
    expect(clock.pending).toBe(0)
  })

  it.each([
    [{ cid: -1 }, 'cid: must be an integer from 0 to 4294967294, got -1'],
    [{ unit: 1 as never }, 'unit: must be a string, got 1'],
    [{ timeoutMs: 0 }, 'timeoutMs: must be a number of milliseconds above 0, got 0'],
  ])('refuses %j', async (options, message) => {
    await expect(receiving().receiver.ready(options)).rejects.toThrow(message)
  })
})

describe('a hostile guest', () => {
  it('sends a message without end', async () => {
    const { receiver, reasons, clock } = receiving()
    const guest = connection(receiver)
    guest.write('STATUS=')
    guest.write('x'.repeat(4090))
    await settled()
    expect(reasons()).toEqual(['too-long'])
    await once(guest.resume(), 'close')
    const socket = packets('A=1\n'.repeat(1025), 'READY=1')
    receiver.receive(socket)
    await settled()
    expect(reasons()).toEqual(['too-long', 'too-long'])
    expect(socket.did).toEqual(['destroy'])
    expect(receiver.guests.size).toBe(0)
    expect(clock.pending).toBe(0)
  })

  it('breaks off, or never ends, a socket for messages', async () => {
    const { receiver, reasons, clock } = receiving()
    receiver.receive(packets(new Error('of the transport')))
    await settled()
    const socket = packets('READY=1', new Promise<never>(() => {}))
    receiver.receive(socket)
    await settled()
    clock.advance(5000)
    expect(reasons()).toEqual(['broken', 'timeout'])
    expect(socket.did).toEqual(['destroy'])
    const refused = packets('READY=1')
    await receiver.close()
    receiver.receive(refused)
    expect(refused.did).toEqual(['destroy'])
    expect(clock.pending).toBe(0)
  })

  it('never ends, and has one deadline however it drips', async () => {
    const { receiver, reasons, clock } = receiving({ quietMs: 2000 })
    const guest = connection(receiver)
    for (let i = 0; i < 5; i++) {
      guest.write('A=1\n')
      await settled()
      expect(reasons()).toEqual([])
      clock.advance(1000)
    }
    expect(reasons()).toEqual(['timeout'])
    expect(receiver.guests.size).toBe(0)
    expect(clock.pending).toBe(0)
  })

  it('keeps its end open after the answer', async () => {
    const { receiver, refused, clock } = receiving({ quietMs: 200 })
    const [near, far] = duplexPair()
    receiver.receive(near)
    far.write('READY=1')
    await settled()
    clock.advance(200)
    await settled()
    expect(near.destroyed).toBe(false)
    clock.advance(4800)
    expect(near.destroyed).toBe(true)
    expect(refused).toEqual([])
    expect(clock.pending).toBe(0)
  })

  it('opens many connections', async () => {
    const { receiver, reasons, clock } = receiving({ maxConnections: 4 })
    const guests = Array.from({ length: 1000 }, () => connection(receiver))
    expect(reasons()).toEqual(Array(996).fill('full'))
    expect(clock.pending).toBe(4)
    for (const guest of guests.slice(0, 4)) guest.destroy(new Error('gone'))
    await settled()
    expect(reasons().slice(996)).toEqual(Array(4).fill('broken'))
    await notify(receiver, 'READY=1')
    expect(await receiver.ready()).toBeDefined()
  })

  it('is not listened to where another is waited for', async () => {
    const { receiver, refused } = receiving({ cid: 3 })
    connection(receiver, { cid: 4, port: 1023 }).end('READY=1')
    expect(refused).toEqual([{ from: { cid: 4, port: 1023 }, reason: 'cid' }])
    expect(receiver.guests.size).toBe(0)
    await notify(receiver, 'READY=1', { cid: 3 })
    expect(await receiver.ready()).toMatchObject({ cid: 3 })
  })

  it('has processes without rights', async () => {
    const { receiver, reasons } = receiving({ privileged: true })
    for (const from of [{ cid: 3, port: 1024 }, { cid: 3 }]) connection(receiver, from).end('READY=1')
    expect(reasons()).toEqual(['port', 'port'])
    await notify(receiver, 'READY=1', { cid: 3, port: 1023 })
    expect(await receiver.ready()).toMatchObject({ cid: 3 })
  })

  it('is one of too many', async () => {
    const { receiver, reasons } = receiving({ maxGuests: 2 })
    const early = connection(receiver, { cid: 5 })
    for (const cid of [3, 4]) await notify(receiver, 'STATUS=x', { cid })
    connection(receiver, { cid: 6 })
    early.end('READY=1')
    await settled()
    expect(reasons()).toEqual(['full', 'full'])
    expect([...receiver.guests.keys()]).toEqual([3, 4])
    await notify(receiver, 'READY=1', { cid: 4 })
    expect(await receiver.ready()).toMatchObject({ cid: 4 })
  })

  it.each(['', 'no assignment', 'READY=1\0A=2'])('says %j', async (message) => {
    const { receiver, reasons } = receiving()
    await notify(receiver, message)
    expect(reasons()).toEqual(['malformed'])
    expect(receiver.guests.size).toBe(0)
  })

  it('has a stream that fails', async () => {
    const { receiver, reasons } = receiving()
    const stream = new Transform({ transform: (_chunk, _encoding, callback) => callback(new Error('of the transport')) })
    receiver.receive(stream)
    stream.write('READY=1')
    await settled()
    expect(reasons()).toEqual(['broken'])
  })
})

describe('an address', () => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'upcall-ready-'))
  })
  afterEach(() => {
    vi.restoreAllMocks()
    rmSync(dir, { recursive: true, force: true })
  })

  /** The VMM's connection for one of the guest's. */
  const vmm = async (message: string) => {
    const socket = createConnection({ path: `${dir}/vsock_9999`, allowHalfOpen: true })
    await once(socket, 'connect')
    socket.end(message)
    expect(await text(socket)).toBe('')
  }

  it('over hybrid vsock is one guest', async () => {
    const receiver = await listenNotify(`hvsock://${dir}/vsock:9999`, { cid: 42 })
    const ready = receiver.ready()
    await vmm('STATUS=Booting')
    await vmm('READY=1')
    expect(await ready).toMatchObject({ cid: 42, messages: 2 })
    await receiver.close()
  })

  it('gives a guest its answer although the VMM keeps its end to itself', async () => {
    const receiver = await listenNotify(`hvsock://${dir}/vsock:9999`, { quietMs: 20 })
    const ready = receiver.ready()
    const socket = createConnection({ path: `${dir}/vsock_9999`, allowHalfOpen: true })
    socket.write('READY=1')
    expect(await text(socket)).toBe('')
    expect(await ready).toMatchObject({ messages: 1 })
    socket.destroy()
    await receiver.close()
  })

  it('is listened on for as long as it takes', async () => {
    const ready = waitForNotify(`hvsock://${dir}/vsock:9999`, { timeoutMs: 60_000, unit: 'ssh-access.target' })
    await vi.waitFor(() => vmm('READY=1'), { timeout: 10_000 })
    await vmm('X_SYSTEMD_UNIT_ACTIVE=ssh-access.target')
    expect(await ready).toMatchObject({ units: ['ssh-access.target'] })
    const gone = waitForNotify(`hvsock://${dir}/vsock:9999`, { timeoutMs: 60_000 })
    await vi.waitFor(() => vmm('STOPPING=1'), { timeout: 10_000 })
    await expect(gone).rejects.toMatchObject({ code: 'GUEST_STOPPED' })
    expect(await waitForNotify(`hvsock://${dir}/vsock:9999`, { timeoutMs: 1 }).catch((error) => error)).toMatchObject({
      code: 'ETIMEDOUT',
      subject: `hvsock://${dir}/vsock:9999`,
    })
  })

  it('closes by a signal', async () => {
    const cut = new AbortController()
    const receiver = await listenNotify(`hvsock://${dir}/vsock:9999`, { signal: cut.signal })
    const socket = createConnection(`${dir}/vsock_9999`)
    await once(socket, 'connect')
    socket.on('error', () => {})
    const closed = once(socket, 'close')
    cut.abort()
    await once(receiver, 'close')
    await closed
    await receiver.close()
  })

  it('that tells no port cannot tell who has rights', async () => {
    await expect(listenNotify(`hvsock://${dir}/vsock:9999`, { privileged: true })).rejects.toThrow(
      'privileged: must be left out: only AF_VSOCK tells the port of the sender, got true',
    )
    await expect(listenNotify(`hvsock://${dir}/vsock:9999`, { maxPending: 0 })).rejects.toThrow('maxPending: must be')
  })

  it.runIf(addon !== undefined)('may be of SOCK_SEQPACKET', async () => {
    vi.mocked(loader.loadBinding).mockReturnValue(addon!)
    const receiver = await listenNotify(`hvsock+seq://${dir}/vsock:9999`, { cid: 42 })
    const socket = await connectSeqpacket(`unix+seq:${dir}/vsock_9999`)
    await socket.send(Buffer.from('READY=1\nSTATUS=packet'))
    socket.end()
    expect(await socket.receive()).toBeUndefined()
    expect(await receiver.ready()).toMatchObject({ cid: 42, fields: { STATUS: 'packet' } })
    await receiver.close()
  })

  it.runIf(addon !== undefined)('over AF_VSOCK tells who sends', async () => {
    vi.mocked(loader.loadBinding).mockReturnValue(standInForVsock(addon!).binding)
    const receiver = await listenNotify('vsock://any:4713')
    const message = once(receiver, 'message')
    expect(await notifySystemd('READY=1\nSTATUS=up', { socket: 'vsock-stream:2:4713' })).toBe(true)
    expect((await message)[0].from).toMatchObject({ cid: 1, port: expect.any(Number) })
    expect(await receiver.ready()).toMatchObject({ cid: 1 })
    await receiver.close()
  })
})

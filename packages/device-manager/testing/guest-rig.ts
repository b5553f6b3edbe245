// What the tests of the guest share: bytes go straight into a session, and its connection's clock is turned by hand.
import type { GuestConnection, GuestSession } from '@upcall/server'
import { type Arch, decodeReply, encodeRequest, type Reply, type Request } from '@upcall/wire'
import { deviceManagerGuest } from '../src/guest/service.js'
import { type SimulatedGuestOptions, simulatedGuest } from '../src/guest/simulated/guest.js'

export const OLD = ['5.10', '6.1'] as const
export const NEW = ['6.12', '6.18'] as const
export const ALL = [...OLD, ...NEW]
export const NO_REPLY = 'no reply' as const

export class Connection implements GuestConnection {
  readonly remote = ''
  readonly delays: { ms: number; over: () => void; fail: (error: Error) => void }[] = []
  constructor(readonly id: number) {}
  delay(ms: number): Promise<void> {
    return new Promise((over, fail) => this.delays.push({ ms, over, fail }))
  }
}

export function setUp(options: Partial<SimulatedGuestOptions> = {}) {
  const arch: Arch = options.arch ?? 'x86_64'
  const guest = simulatedGuest({ arch, ...options })
  const service = deviceManagerGuest(guest)
  let connections = 0
  const connect = () => {
    const connection = new Connection(++connections)
    const session: GuestSession = service.open(connection)
    const receive = async (chunk: Uint8Array) => {
      const replies: Uint8Array[] = []
      for await (const reply of await session.receive(chunk, 0)) replies.push(reply)
      return replies
    }
    /** The one reply to a request. */
    const ask = async (request: Request): Promise<Reply | typeof NO_REPLY> => {
      const [reply, more] = await receive(encodeUnchecked(request, arch))
      if (more !== undefined) throw new Error('more than one reply to one request')
      return reply === undefined ? NO_REPLY : decodeReply(reply, arch)
    }
    /** Only its result. */
    const result = async (request: Request): Promise<number | typeof NO_REPLY> => {
      const reply = await ask(request)
      return reply === NO_REPLY ? NO_REPLY : reply.result
    }
    return {
      connection,
      session,
      /** Everything that a chunk brings back. */
      async send(chunk: Uint8Array): Promise<Uint8Array[]> {
        return receive(chunk)
      },
      ask,
      result,
    }
  }
  return { guest, service, connect, arch }
}

/** As `encodeRequest`, but what the codec refuses (no CPU, the same one twice, irq 0) goes out too. */
function encodeUnchecked(request: Request, arch: Arch): Uint8Array {
  if ('apicIds' in request) {
    const load = new Uint8Array(258)
    load[0] = request.apicIds.length
    load[1] = 0x14
    load.set(request.apicIds, 2)
    return encodeRequest({ type: 'RAW', messageType: request.type === 'ADD_CPU' ? 1 : 2, load }, arch)
  }
  if ('irq' in request && request.irq === 0) {
    const bytes = encodeRequest({ ...request, irq: 1 }, arch)
    bytes[32] = 0
    return bytes
  }
  if ('count' in request && request.count === 0) {
    return encodeRequest({ type: 'RAW', messageType: request.type === 'ADD_CPU' ? 1 : 2, load: Uint8Array.of(0) }, arch)
  }
  return encodeRequest(request, arch)
}

export const addCpu = (...apicIds: number[]): Request => ({ type: 'ADD_CPU', apicIds })
export const delCpu = (...apicIds: number[]): Request => ({ type: 'DEL_CPU', apicIds })
export const addCount = (count: number): Request => ({ type: 'ADD_CPU', count })
export const delCount = (count: number): Request => ({ type: 'DEL_CPU', count })
export const addMmio = (base = 0xd000_0000n, size = 0x1000n, irq = 5): Request => ({ type: 'ADD_MMIO', base, size, irq })
export const delMmio = (base = 0xd000_0000n, size = 0x1000n, irq = 5): Request => ({ type: 'DEL_MMIO', base, size, irq })
export const addPci = (devfn: number, bus = 0): Request => ({ type: 'ADD_PCI', bus, devfn })
export const delPci = (devfn: number, bus = 0): Request => ({ type: 'DEL_PCI', bus, devfn })
export const raw = (messageType: number): Request => ({ type: 'RAW', messageType, load: new Uint8Array(0) })

import type { Duplex } from 'node:stream'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import type { ConnectionHandler } from '../src/connections.js'
import { tuning } from '../src/direct.js'
import type { VsockStream } from '../src/stream.js'
import type { VhostUserVsock, VhostUserVsockOptions } from '../src/vhost-user-vsock.js'
import type { FakeFrontEnd } from './fake-front-end.js'
import { type GuestSocket, GuestSockets } from './guest-sockets.js'
import { cleanups, running } from './scene.js'

// Both ends as programs have them: a stream or a socket here, a socket of a guest that behaves as Linux's do there.

export const LINGER_MS = 8_000

/** What carries the bytes of a joined socket, and how much news comes first. */
export const carriers = [
  ['carried by streams', Number.POSITIVE_INFINITY],
  ['carried directly', 0],
] as const

/** For this test: after how much news the bytes of a joined socket go directly. */
export function setFirstNews(count: number): void {
  const { firstNews } = tuning
  tuning.firstNews = count
  cleanups.push(() => {
    tuning.firstNews = firstNews
  })
}

export interface World {
  device: VhostUserVsock
  guest: GuestSockets
  time: ManualClock
  vmm: FakeFrontEnd
}

export async function world(onConnection?: ConnectionHandler, options: Partial<VhostUserVsockOptions> = {}): Promise<World> {
  const time = new ManualClock()
  const { device, vmm } = await running({ clock: time, lingerMs: LINGER_MS, onConnection, ...options })
  return { device, vmm, time, guest: new GuestSockets(vmm) }
}

/** A stream and the guest's end of it. */
export async function pair({ device, guest }: World, before?: (socket: GuestSocket) => void) {
  const accepted = guest.accepted(before)
  const connecting = device.connect(5000)
  let stream: VsockStream | undefined
  void connecting.then((it) => {
    stream = it
  })
  const socket = await accepted
  await guest.until(() => stream !== undefined)
  return { stream: stream!, socket, fate: fateOf(stream!) }
}

/** What a program sees of a stream's life. */
export function fateOf(stream: Duplex) {
  const fate = { bytes: 0, ended: false, finished: false, code: undefined as string | undefined, closed: false }
  stream
    .on('end', () => (fate.ended = true))
    .on('finish', () => (fate.finished = true))
    .on('error', (error: NodeJS.ErrnoException) => (fate.code = error.code))
    .on('close', () => (fate.closed = true))
  return fate
}

export function reading(stream: Duplex, fate: { bytes: number }): void {
  stream.on('data', (chunk: Buffer) => (fate.bytes += chunk.length))
}

import type { Duplex } from 'node:stream'
import { VsockSocket } from './socket.js'

/** What the guest sees as its peer's port, where its stream says so: the stream of a vhost-user device, a socket of AF_VSOCK. */
export function hostPortOf(stream: Duplex): number | undefined {
  if (stream instanceof VsockSocket) return stream.local?.transport === 'vsock' ? stream.local.port : undefined
  const { hostPort } = stream as { hostPort?: unknown }
  return Number.isInteger(hostPort) && (hostPort as number) >= 0 && (hostPort as number) <= 0xffff_ffff
    ? (hostPort as number)
    : undefined
}

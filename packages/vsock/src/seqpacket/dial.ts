import { withShortPath } from '@upcall/foundation/long-path'
import { asSeqpacket, hybridSeqpacketPath, type SeqpacketAddress } from '../address.js'
import type { Attempt } from '../attempts.js'
import { malformedReply } from '../dial.js'
import { connectError, refusedByVmm, VsockError } from '../errors.js'
import { connectCommand, parseReply } from '../handshake.js'
import type { Binding, Descriptor } from '../native/binding.js'
import { type ConnectControl, connectTo } from '../native/connect.js'
import type { VsockConnectOptions } from '../native/options.js'
import { encodeSockaddrUn } from '../native/sockaddr.js'
import { connectNativeWith, needBinding } from '../native/vsock.js'
import { type SeqpacketInit, SeqpacketSocket } from './socket.js'

export interface DialSeqpacketOptions extends Pick<SeqpacketInit, 'maxReceiveBytes' | 'clock'> {
  readonly vsock: VsockConnectOptions | undefined
}

/** One attempt, any handshake included. Everything that it opened is closed before it rejects. */
export async function dialSeqpacket(
  remote: SeqpacketAddress,
  { signal, timeoutMs, life }: Parameters<Attempt<SeqpacketSocket>>[0],
  { vsock, ...options }: DialSeqpacketOptions,
): Promise<SeqpacketSocket> {
  const hold: ConnectControl['hold'] = (each) => life.hold(each)
  if (remote.transport === 'vsock') {
    const how = { type: 'SOCK_SEQPACKET', signal, timeoutMs, hold, vsock } as const
    return connectNativeWith(remote, how, (binding, descriptor, local) =>
      adopt({ ...options, binding, descriptor, remote, local: asSeqpacket(local) }),
    )
  }
  const path = remote.transport === 'hvsock' ? hybridSeqpacketPath(remote.path) : remote.path
  const binding = needBinding('connect', { remote })
  const socket = await connectPath(binding, remote, path, { signal, hold }, options)
  if (remote.transport === 'hvsock') await shakeHands(socket, remote, signal)
  return socket
}

/** The attempt watched the descriptor; the socket begins without a watch. */
function adopt(init: SeqpacketInit & { readonly descriptor: Descriptor }): SeqpacketSocket {
  init.binding.unwatch(init.descriptor)
  return new SeqpacketSocket(init)
}

async function connectPath(
  binding: Binding,
  remote: SeqpacketAddress,
  path: string,
  control: ConnectControl,
  options: Omit<DialSeqpacketOptions, 'vsock'>,
): Promise<SeqpacketSocket> {
  try {
    return await withShortPath(path, (short) => {
      const target = { family: binding.AF_UNIX, type: binding.SOCK_SEQPACKET, sockaddr: encodeSockaddrUn(short) }
      return connectTo(binding, target, (descriptor) => adopt({ ...options, binding, descriptor, remote }), control)
    })
  } catch (error) {
    if (control.signal?.aborted && error === control.signal.reason) throw error
    throw connectError(remote, error)
  }
}

/** CONNECT and OK are the first message each way. */
async function shakeHands(
  socket: SeqpacketSocket,
  remote: SeqpacketAddress & { transport: 'hvsock' },
  signal: AbortSignal,
): Promise<void> {
  try {
    await socket.send(Buffer.from(connectCommand(remote.port), 'latin1'), { signal })
    const reply = await socket.receive({ signal })
    if (reply === undefined) throw refusedByVmm(remote)
    const text = Buffer.from(reply.data)
    const parsed = parseReply(text)
    if (parsed.kind === 'accepted' && parsed.end === reply.sentBytes) return
    throw malformedReply(remote, text.toString('latin1', 0, 32))
  } catch (error) {
    socket.destroy()
    if (signal.aborted) throw signal.reason
    const gone = error instanceof VsockError && (error.op === 'send' || error.op === 'receive')
    throw gone ? refusedByVmm(remote, error.cause) : error
  }
}

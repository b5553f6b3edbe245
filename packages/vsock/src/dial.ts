import type { Clock } from '@upcall/foundation/clock'
import { withShortPath } from '@upcall/foundation/long-path'
import type { Address, HvsockAddress, UnixAddress } from './address.js'
import { connectError, refusedByVmm, VsockError } from './errors.js'
import { connectCommand, parseReply } from './handshake.js'
import type { VsockConnectOptions } from './native/options.js'
import { connectNative } from './native/vsock.js'
import { VsockSocket } from './socket.js'

export interface DialOptions {
  /** Ends the attempt: it rejects with the signal's reason, which is a finished VsockError. */
  signal: AbortSignal
  /** When the signal will end it, at the latest. */
  timeoutMs: number
  halfClose: boolean
  lingerMs: number | undefined
  clock: Clock
  vsock: VsockConnectOptions | undefined
}

/** One attempt, any handshake included. Everything that it opened is closed before it rejects. */
export function dial(address: Address, options: DialOptions): Promise<VsockSocket> {
  return address.transport === 'vsock' ? connectNative(address, options) : dialUnix(address, options)
}

function dialUnix(address: HvsockAddress | UnixAddress, options: DialOptions): Promise<VsockSocket> {
  const { signal, halfClose, lingerMs, clock } = options
  return new Promise((resolve, reject) => {
    const socket = new VsockSocket({ remote: address, halfClose, lingerMs, clock })
    let received: Buffer = Buffer.alloc(0)

    const settle = () => {
      signal.removeEventListener('abort', onAbort)
      socket.off('connect', onConnect).off('readable', onReadable).off('end', onEnd).off('error', onError)
    }
    const succeed = () => {
      settle()
      resolve(socket)
    }
    const fail = (error: unknown) => {
      settle()
      // This socket never gets another listener.
      socket.on('error', () => {})
      socket.destroy()
      reject(error)
    }
    const onAbort = () => fail(signal.reason)
    const onError = (error: Error) => fail(connectError(address, error))
    const onEnd = () => fail(refusedByVmm(address))
    const onConnect = () => {
      if (address.transport === 'unix') return succeed()
      // 'readable' and not 'data': a socket that was made to flow would have to be paused, and then stay so for its new owner.
      socket.on('readable', onReadable).on('end', onEnd)
      // In one write: Firecracker and others close on a command that arrives in pieces.
      socket.write(connectCommand(address.port), 'latin1')
    }
    const onReadable = () => {
      const chunk: Buffer | null = socket.read()
      if (chunk === null) return
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const reply = parseReply(received)
      if (reply.kind === 'malformed') return fail(malformed(address, reply.text))
      if (reply.kind === 'incomplete') return
      // The guest may speak first, in the same piece as the reply.
      if (received.length > reply.end) socket.unshift(received.subarray(reply.end))
      succeed()
    }

    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort)
    socket.on('connect', onConnect).on('error', onError)
    try {
      withShortPath(address.path, (path) => socket.connect(path))
    } catch (error) {
      fail(connectError(address, error))
    }
  })
}

function malformed(remote: Address, text: string): VsockError {
  return new VsockError({
    code: 'EPROTO',
    op: 'connect',
    remote,
    what: `the reply to CONNECT is ${JSON.stringify(text)}, not "OK <n>"`,
    next: 'Check that a hybrid vsock VMM listens on this path. For a socket without CONNECT write unix:<path>.',
  })
}

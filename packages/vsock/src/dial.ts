import { Socket } from 'node:net'
import { withShortPath } from '@upcall/foundation/long-path'
import type { Address, HvsockAddress, UnixAddress } from './address.js'
import { connectError, refusedByVmm, VsockError } from './errors.js'
import type { Dialled } from './handle.js'
import { connectCommand, parseReply } from './handshake.js'
import type { Life } from './life.js'
import type { VsockConnectOptions } from './native/options.js'
import { connectNative } from './native/vsock.js'

export interface DialOptions {
  /** Ends the attempt: it rejects with the signal's reason, which is a finished error. */
  signal: AbortSignal
  /** When the signal will end it, at the latest. */
  timeoutMs: number
  /** Whether the attempt keeps the process alive. */
  life: Life
  vsock: VsockConnectOptions | undefined
}

/** One attempt, any handshake included. Everything that it opened is closed before it rejects. */
export function dial(address: Address, options: DialOptions): Promise<Dialled> {
  return address.transport === 'vsock' ? connectNative(address, options) : dialUnix(address, options)
}

function dialUnix(address: HvsockAddress | UnixAddress, { signal, life }: DialOptions): Promise<Dialled> {
  return new Promise((resolve, reject) => {
    const carrier = new Socket({ allowHalfOpen: true })
    const letGo = life.hold(carrier)
    let received: Buffer = Buffer.alloc(0)

    const settle = () => {
      letGo()
      signal.removeEventListener('abort', onAbort)
      carrier.off('connect', onConnect).off('readable', onReadable).off('end', onEnd).off('error', onError)
    }
    const succeed = (replyBytes: number) => {
      settle()
      const commandBytes = address.transport === 'unix' ? 0 : connectCommand(address.port).length
      resolve({ carrier, greeting: received.subarray(replyBytes), replyBytes, commandBytes })
    }
    const fail = (error: unknown) => {
      settle()
      // This socket never gets another listener.
      carrier.on('error', () => {})
      carrier.destroy()
      reject(error)
    }
    const onAbort = () => fail(signal.reason)
    const onError = (error: Error) => fail(connectError(address, error))
    const onEnd = () => fail(refusedByVmm(address))
    const onConnect = () => {
      if (address.transport === 'unix') return succeed(0)
      carrier.on('readable', onReadable).on('end', onEnd)
      // In one write: Firecracker and others close on a command that arrives in pieces.
      carrier.write(connectCommand(address.port), 'latin1')
    }
    const onReadable = () => {
      const chunk: Buffer | null = carrier.read()
      if (chunk === null) return
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const reply = parseReply(received)
      if (reply.kind === 'malformed') return fail(malformedReply(address, reply.text))
      if (reply.kind === 'accepted') succeed(reply.end)
    }

    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort)
    carrier.on('connect', onConnect).on('error', onError)
    try {
      withShortPath(address.path, (path) => carrier.connect(path))
    } catch (error) {
      fail(connectError(address, error))
    }
  })
}

/** What came in place of the VMM's reply to CONNECT. */
export function malformedReply(remote: Address, text: string): VsockError {
  return new VsockError({
    code: 'EPROTO',
    op: 'connect',
    remote,
    what: `the reply to CONNECT is ${JSON.stringify(text)}, not "OK <n>"`,
    next: 'Check that a hybrid vsock VMM listens on this path. For a socket without CONNECT write unix:<path>.',
  })
}

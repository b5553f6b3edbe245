import { createServer, Socket } from 'node:net'
import { backoffDelay } from '@upcall/foundation/backoff'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import { type Bounds, bounded } from '@upcall/foundation/wait'
import { type ConnectOptions, planOf } from '../plan.js'
import type { TcpAddress } from './endpoint.js'
import { isTcpError, TcpError } from './tcp-error.js'

/** A TCP connection, half-open as long as its two directions need it. As `connect`: with `retry`, it tries until the time is over. */
export async function dialTcp(address: TcpAddress, options: ConnectOptions): Promise<Socket> {
  const { signal, clock = systemClock } = options
  const { timeoutMs, retry } = planOf(options)
  const deadline = clock.now() + timeoutMs
  for (let attempts = 1; ; attempts++) {
    const left = deadline - clock.now()
    try {
      return await attempt(address, { signal, clock, timeoutMs: Math.max(1, Math.min(left, retry?.attemptTimeoutMs ?? left)) })
    } catch (error) {
      const delayMs = retry && backoffDelay(retry, attempts)
      const again = delayMs !== undefined && isTcpError(error) && error.retryable && clock.now() + delayMs < deadline
      if (!again) throw error
      await sleep(address, delayMs, signal, clock)
    }
  }
}

function attempt(
  address: TcpAddress,
  { signal, clock, timeoutMs }: { signal: AbortSignal | undefined; clock: Clock; timeoutMs: number },
): Promise<Socket> {
  const { host, port } = address
  const bounds: Bounds = {
    timeoutMs,
    signal,
    clock,
    late: () => new TcpError('connect', address, undefined, 'ETIMEDOUT'),
    aborted: (reason) => new TcpError('connect', address, reason, 'ABORTED'),
  }
  return bounded(bounds, (resolve, reject) => {
    const socket = new Socket({ allowHalfOpen: true })
    let connected = false
    const onError = (cause: Error) => reject(new TcpError('connect', address, cause))
    socket.on('error', onError)
    socket.once('connect', () => {
      connected = true
      resolve(socket)
    })
    socket.connect({ host, port, noDelay: true })
    return () => {
      socket.off('error', onError)
      if (!connected) socket.on('error', () => {}).destroy()
    }
  })
}

function sleep(address: TcpAddress, ms: number, signal: AbortSignal | undefined, clock: Clock): Promise<void> {
  const bounds: Bounds = {
    timeoutMs: Number.POSITIVE_INFINITY,
    signal,
    clock,
    late: () => new TcpError('connect', address, undefined, 'ETIMEDOUT'),
    aborted: (reason) => new TcpError('connect', address, reason, 'ABORTED'),
  }
  return bounded(bounds, (resolve) => clock.setTimer(ms, () => resolve(undefined)))
}

export interface TcpListener {
  /** With the port that was chosen. */
  readonly address: TcpAddress
  /** Resolves when it takes no more connections; those that it took live on. */
  stop(): Promise<void>
}

/** @throws {TcpError} where it cannot listen. `onError`: accepting one connection failed, and the listener goes on. */
export function listenTcp(
  address: TcpAddress,
  onConnection: (socket: Socket) => void,
  onError: (error: Error) => void,
): Promise<TcpListener> {
  return new Promise((resolve, reject) => {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, onConnection)
    const onFailed = (cause: Error) => reject(new TcpError('listen', address, cause))
    server.once('error', onFailed)
    server.listen({ host: address.host, port: address.port, exclusive: true }, () => {
      // Out of descriptors, for example: the connection waits, and the server goes on.
      server.off('error', onFailed).on('error', onError)
      const { port } = server.address() as { port: number }
      // Its callback waits for the connections, too. The port is free at once.
      resolve({ address: { ...address, port }, stop: async () => void server.close() })
    })
  })
}

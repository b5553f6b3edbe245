import { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { backoffDelay } from '@upcall/foundation/backoff'
import { systemClock } from '@upcall/foundation/clock'
import { type Bounds, bounded } from '@upcall/foundation/wait'
import { connect, type VsockConnectOptions } from '@upcall/vsock'
import { DIAL_MS } from '../session.js'
import type { Endpoint, TcpAddress } from './endpoint.js'
import { TcpError } from './error.js'

/** How long `--retry` tries if `--timeout` does not say. */
export const RETRY_MS = 30_000

export interface DialOptions {
  signal: AbortSignal
  /** All attempts together. Default 5 s, with `retry` 30 s. */
  timeoutMs?: number | undefined
  retry?: boolean | undefined
  halfClose?: boolean | undefined
  lingerMs?: number | undefined
  vsock?: VsockConnectOptions | undefined
}

/** A connection, and whether its EOF in one direction leaves the other one open. */
export interface Stream {
  readonly socket: Socket
  readonly halfClose: boolean
}

/** Resolves after any handshake. Rejects with a VsockError or a TcpError, also when the signal aborts. */
export async function openStream(endpoint: Endpoint, options: DialOptions): Promise<Stream> {
  if (endpoint.transport === 'tcp') return { socket: await dialTcp(endpoint, options), halfClose: true }
  const { retry = false, timeoutMs = retry ? RETRY_MS : DIAL_MS, ...rest } = options
  const socket = await connect(endpoint, { ...rest, retry, timeoutMs, allowHalfOpen: true })
  return { socket, halfClose: socket.halfClose }
}

const PACE = { minDelayMs: 10, maxDelayMs: 1_000, random: Math.random }

async function dialTcp(address: TcpAddress, { signal, retry = false, timeoutMs }: DialOptions): Promise<Socket> {
  const deadline = performance.now() + (timeoutMs ?? (retry ? RETRY_MS : DIAL_MS))
  for (let attempt = 1; ; attempt++) {
    try {
      return await attemptTcp(address, signal, Math.max(1, deadline - performance.now()))
    } catch (error) {
      const delayMs = backoffDelay(PACE, attempt)
      const again = retry && error instanceof TcpError && error.retryable && performance.now() + delayMs < deadline
      if (!again) throw error
      await delay(delayMs, undefined, { signal }).catch(() => {
        throw new TcpError('connect', address, signal.reason, 'ABORTED')
      })
    }
  }
}

function attemptTcp(address: TcpAddress, signal: AbortSignal, timeoutMs: number): Promise<Socket> {
  const { host, port } = address
  const bounds: Bounds = {
    timeoutMs,
    signal,
    clock: systemClock,
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
    socket.connect({ host, port })
    return () => {
      if (connected) socket.off('error', onError)
      else
        socket
          .off('error', onError)
          .on('error', () => {})
          .destroy()
    }
  })
}

import { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
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
  const socket = await connect(endpoint, { ...rest, retry, timeoutMs })
  return { socket, halfClose: socket.halfClose }
}

async function dialTcp(address: TcpAddress, { signal, retry = false, timeoutMs }: DialOptions): Promise<Socket> {
  const deadline = performance.now() + (timeoutMs ?? (retry ? RETRY_MS : DIAL_MS))
  for (let ceilingMs = 20; ; ceilingMs = Math.min(2 * ceilingMs, 1_000)) {
    try {
      return await attemptTcp(address, signal, Math.max(1, deadline - performance.now()))
    } catch (error) {
      const delayMs = 10 + Math.random() * (ceilingMs - 10)
      const again = retry && error instanceof TcpError && error.retryable && performance.now() + delayMs < deadline
      if (!again) throw error
      await delay(delayMs, undefined, { signal }).catch((cause) => {
        throw new TcpError('connect', address, cause)
      })
    }
  }
}

function attemptTcp(address: TcpAddress, signal: AbortSignal, timeoutMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const { host, port } = address
    const socket = new Socket({ allowHalfOpen: true })
    const settle = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      socket.off('connect', onConnect).off('error', fail)
    }
    const fail = (cause: unknown) => {
      settle()
      socket.on('error', () => {}).destroy()
      reject(new TcpError('connect', address, cause))
    }
    const onConnect = () => {
      settle()
      resolve(socket)
    }
    const onAbort = () => fail(Object.assign(new Error('aborted'), { code: 'ABORTED', cause: signal.reason }))
    const timer = setTimeout(() => fail(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })), timeoutMs)
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort)
    socket.on('connect', onConnect).on('error', fail)
    socket.connect({ host, port })
  })
}

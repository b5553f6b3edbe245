import { onAbort } from '@upcall/foundation/abort'
import { systemClock } from '@upcall/foundation/clock'
import { joinMessages } from '@upcall/foundation/join-messages'
import {
  type ConnectSeqpacketOptions,
  connectSeqpacket,
  formatAddress,
  formatEndpoint,
  type InheritedSocket,
  type SeqpacketAddress,
  type SeqpacketSocket,
  type VsockOptions,
} from '@upcall/vsock'
import type { Context } from '../../context.js'
import { cannotListen } from '../../streams/listener.js'
import { type IncomingMessages, listenMessages } from '../../streams/messages.js'
import { notSent, relayReport, type StreamReport } from './converse.js'
import { serveConnections } from './service.js'

export interface ForwardMessagesOptions {
  max: number
  graceMs: number | undefined
  retry: boolean | undefined
  mode: number | undefined
  vsock: VsockOptions
}

/** `forward` between two addresses for messages. Each message stays one. */
export async function forwardMessages(
  context: Context,
  from: SeqpacketAddress | InheritedSocket,
  to: SeqpacketAddress,
  { max, graceMs = 0, retry, mode, vsock }: ForwardMessagesOptions,
): Promise<void> {
  const { io, output, timeoutMs } = context
  const peer = formatAddress(to)
  const { signal: cut, release } = afterGrace(io, graceMs)
  try {
    await serveConnections<IncomingMessages>(context, {
      output,
      max,
      open: (offer) => listenMessages(from, { mode, vsock }, offer).catch(cannotListen('<from>')),
      async onListening(listener) {
        const address = formatEndpoint(listener.address)
        await output.result(
          { event: 'listening', address, to: peer },
          (paint) => `${paint('green', 'listening')} on ${address}, to ${peer}`,
        )
      },
      serve: (incoming) => carry(incoming, to, { connecting: { timeoutMs, retry, vsock }, stop: io.signal, cut }),
    })
  } finally {
    release()
  }
}

/** Aborts when open connections are to end: `graceMs` after the interruption, or at once after a second one. */
function afterGrace({ signal, hurry }: Context['io'], graceMs: number): { signal: AbortSignal; release(): void } {
  const cut = new AbortController()
  let cancel = () => {}
  const end = () => cut.abort(signal.reason)
  const begin = () => {
    cancel = systemClock.setTimer(graceMs, end)
  }
  if (signal.aborted) begin()
  const stops = [onAbort(signal, begin), onAbort(hurry, end)]
  return {
    signal: cut.signal,
    release() {
      cancel()
      for (const stop of stops) stop()
    },
  }
}

interface Carrying {
  readonly connecting: ConnectSeqpacketOptions
  /** Ends the connecting. */
  readonly stop: AbortSignal
  /** Ends what is connected. */
  readonly cut: AbortSignal
}

async function carry(
  { messages: near, remote, signal }: IncomingMessages,
  to: SeqpacketAddress,
  { connecting, stop, cut }: Carrying,
): Promise<StreamReport> {
  const started = performance.now()
  let far: SeqpacketSocket
  try {
    far = await connectSeqpacket(to, { ...connecting, signal: AbortSignal.any([stop, signal]) })
  } catch (error) {
    near.destroy()
    return notSent(error)
  }
  let first: 'near' | 'far' | undefined
  void near.closed.then(() => (first ??= 'near'))
  void far.closed.then(() => (first ??= 'far'))
  const end = (reason: unknown) => {
    for (const socket of [near, far]) socket.destroy(reason as Error)
  }
  const stopCutting = onAbort(cut, end)
  if (cut.aborted) end(cut.reason)
  const { aToB: toFar, bToA: toNear } = await joinMessages(near, far)
  stopCutting()
  const error = (first === 'near' ? near.errored : far.errored) ?? near.errored ?? far.errored
  const aborted = cut.aborted && error === cut.reason
  const relayed = {
    toFar,
    toNear,
    ...(error && !aborted && { broken: { side: first ?? 'far', error } }),
    ...(aborted && { aborted }),
  }
  const durationMs = performance.now() - started
  return relayReport(relayed, { durationMs, peer: formatAddress(to), near: remote, reason: cut.reason })
}

import { once } from 'node:events'
import type { Context } from '../../context.js'
import { EventLog } from '../../events.js'
import type { Output } from '../../output.js'
import { Admission } from '../../streams/admission.js'
import type { Incoming, Listener } from '../../streams/listener.js'
import { failureText, type StreamReport } from './converse.js'

export interface ServiceOptions {
  /** Where its events go, one line each. */
  output: Output
  /** Connections at once. */
  max: number
  open(offer: (incoming: Incoming) => void, log: EventLog): Promise<Listener>
  onListening(listener: Listener): Promise<void> | void
  /** Carries one connection to its end. */
  serve(incoming: Incoming): Promise<StreamReport>
  /** After the last connection was admitted. `idle` resolves when all have ended. */
  onStopped?(idle: Promise<void>): Promise<void>
}

/** Serves connections until the command is interrupted. Nothing is open when it resolves. */
export async function serveConnections({ io, exit }: Context, options: ServiceOptions): Promise<void> {
  const { output, max, open, onListening, serve, onStopped } = options
  const log = new EventLog(output)
  let connections = 0
  const admission = new Admission(max, async (incoming) => {
    const connection = ++connections
    const { remote } = incoming
    log.event({ event: 'connect', connection, remote }, (paint) => `#${connection} connected ${paint('grey', `(${remote})`)}`)
    const report = await serve(incoming)
    log.event({ event: 'disconnect', connection, ...report }, (paint) => {
      if (report.error) return `#${connection} ${failureText(report, paint)}`
      const { sent, received, status, durationMs } = report
      const ended = status ? `, status ${status}` : ''
      return `#${connection} gone: ${sent} bytes sent, ${received} received${ended} ${paint('grey', `(${durationMs} ms)`)}`
    })
  })
  const listener = await open((incoming) => admission.offer(incoming), log)
  try {
    await onListening(listener)
    exit.servesUntilTold = true
    if (!io.signal.aborted) await once(io.signal, 'abort')
  } finally {
    await listener.stop()
    admission.stop()
    await onStopped?.(admission.idle())
    await admission.idle()
    await listener.close()
  }
}

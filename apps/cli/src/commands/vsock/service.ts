import { once } from 'node:events'
import { Admission } from '@upcall/foundation/admission'
import { type EndpointListener, formatEndpoint, type Incoming } from '@upcall/vsock'
import type { Context } from '../../context.js'
import { EventLog } from '../../events.js'
import type { Output } from '../../output.js'
import { ServiceManager } from '../../service-manager.js'
import { failureText, type StreamReport } from './converse.js'

export interface ServiceOptions<Each extends Incoming = Incoming> {
  /** Where its events go, one line each. */
  output: Output
  /** Connections at once. */
  max: number
  open(offer: (incoming: Each) => void, log: EventLog): Promise<EndpointListener>
  onListening(listener: EndpointListener): Promise<void> | void
  /** Carries one connection to its end. */
  serve(incoming: Each): Promise<StreamReport>
}

/** Serves connections until the command is interrupted. Nothing is open when it resolves. */
export async function serveConnections<Each extends Incoming>(
  { io, exit }: Context,
  options: ServiceOptions<Each>,
): Promise<void> {
  const { output, max, open, onListening, serve } = options
  const log = new EventLog(output)
  let connections = 0
  const admission = new Admission<Each>(max, async (incoming) => {
    const connection = ++connections
    logConnect(log, connection, incoming.remote)
    logDisconnect(log, connection, await serve(incoming))
  })
  const manager = new ServiceManager(io)
  const listener = await open((incoming) => admission.offer(incoming), log)
  try {
    await onListening(listener)
    await manager.ready(formatEndpoint(listener.address))
    exit.servesUntilTold = true
    if (!io.signal.aborted) await once(io.signal, 'abort')
  } finally {
    await manager.stopping()
    await listener.stop()
    admission.stop()
    await admission.idle()
    await listener.close()
  }
}

export function logConnect(log: EventLog, connection: number, remote: string): void {
  log.event({ event: 'connect', connection, remote }, (paint) => `#${connection} connected ${paint('grey', `(${remote})`)}`)
}

export function logDisconnect(log: EventLog, connection: number, report: StreamReport): void {
  log.event({ event: 'disconnect', connection, ...report }, (paint) => {
    if (report.error) return `#${connection} ${failureText(report, paint)}`
    const { sent, received, status, durationMs } = report
    const ended = status ? `, status ${status}` : ''
    return `#${connection} gone: ${sent} bytes sent, ${received} received${ended} ${paint('grey', `(${durationMs} ms)`)}`
  })
}

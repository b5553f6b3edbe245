import { channel } from 'node:diagnostics_channel'
import { debuglog } from 'node:util'

/** Lets a person or a program see what a driver does. */
export interface Trace {
  /**
   * Publishes `message` on the diagnostics channel `upcall:<package>`, and prints `format` under `NODE_DEBUG=upcall-<package>`.
   * Costs two tests where there is no subscriber and no NODE_DEBUG.
   */
  (message: object, format: string, ...args: readonly unknown[]): void
  /** Whether there is a subscriber or NODE_DEBUG, for details that are costly to make. */
  readonly enabled: boolean
}

/** The trace of a package, for drivers and transports. Pure code logs nothing. */
export function traceOf(packageName: string): Trace {
  const log = debuglog(`upcall-${packageName}`)
  const published = channel(`upcall:${packageName}`)
  const trace = (message: object, format: string, ...args: readonly unknown[]): void => {
    if (published.hasSubscribers) published.publish(message)
    log(format, ...args)
  }
  Object.defineProperty(trace, 'enabled', { get: () => published.hasSubscribers || log.enabled })
  return trace as Trace
}

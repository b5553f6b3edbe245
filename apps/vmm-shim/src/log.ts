import { destination, pino } from 'pino'

type Write = (fields: object, message: string) => void

/** What the shim needs of a logger; pino's fits. */
export interface Log {
  readonly debug: Write
  readonly info: Write
  readonly warn: Write
  readonly error: Write
}

const nothing: Write = () => {}

export const silentLog: Log = { debug: nothing, info: nothing, warn: nothing, error: nothing }

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const

/** JSON lines on stderr, written at once so that none is lost at the end. */
export function stderrLog(level: (typeof LOG_LEVELS)[number]): Log {
  return pino({ name: 'vmm-shim', level }, destination({ fd: 2, sync: true }))
}

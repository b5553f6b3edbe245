// What the VMM asks the program in its default image, over vsock: one JSON line each way, then the connection ends.

/** Where it answers. */
export const AGENT_PORT = 10219
/** Where it sends back whatever it is sent. */
export const ECHO_PORT = 10220

/** Of a program's stdout, and of its stderr, in bytes. */
export const MAX_OUTPUT = 1024 * 1024

/** `execute` runs a program in the guest; its output is UTF-8 and at most 1 MiB, and it may take `timeoutMs`. */
export type Ask =
  | { readonly ask: 'report' }
  | { readonly ask: 'execute'; readonly argv: readonly string[]; readonly timeoutMs: number }

export interface Executed {
  /** null if a signal ended it. */
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

export type Answer<T> = { readonly ok: T } | { readonly error: string }

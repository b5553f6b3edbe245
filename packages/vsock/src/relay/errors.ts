import { VsockError } from '../errors.js'

/** The end had ended its side, and took nothing of what was left for it. */
export function stalledError(): VsockError {
  return new VsockError({
    code: 'ETIMEDOUT',
    op: 'relay',
    what: 'the end has ended its own direction and takes no more',
    next: 'Let it read to EOF, or give it more time.',
  })
}

/** The end closed before it had taken everything. */
export function goneError(): VsockError {
  return new VsockError({
    code: 'EPIPE',
    op: 'relay',
    what: 'the end closed before it had taken everything',
    next: 'Let it read to EOF before it closes.',
  })
}

/** The end closed without an error and without EOF. */
export function closedEarlyError(): VsockError {
  return new VsockError({
    code: 'ECONNRESET',
    op: 'relay',
    what: 'the end closed before it had ended',
    next: 'Its own log may say why.',
  })
}

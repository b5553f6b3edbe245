import {
  type Endpoint,
  type InheritedSocket,
  isVsockError,
  listenFds,
  parseEndpoint,
  parseSeqpacketAddress,
  type SeqpacketAddress,
} from '@upcall/vsock'
import { UPCALL_PORT } from '@upcall/wire'
import { UsageError } from '../errors.js'
import { checkedAddress } from '../options.js'

/**
 * The forms of the library's endpoints. The port that an address of a guest may leave out is upcall's own.
 *
 * @throws UsageError for anything else; `source` is where the user wrote it.
 */
export function parseStreamEndpoint(text: string, source: string): Endpoint {
  return checkedAddress(text, source, (address) => parseEndpoint(address, { defaultPort: UPCALL_PORT }))
}

/** The same, and the address of a message socket, with `+seq` after the scheme. */
export function parseAnyEndpoint(text: string, source: string): Endpoint | SeqpacketAddress {
  if (!/^\w+\+seq:/.test(text)) return parseStreamEndpoint(text, source)
  return checkedAddress(text, source, (address) => parseSeqpacketAddress(address, { defaultPort: UPCALL_PORT }))
}

/** Where a command listens: an endpoint, or a socket that systemd or another program opened. */
export type ListenOn<E = Endpoint> = E | InheritedSocket

type Environment = Record<string, string | undefined>

/**
 * `fd:<n>`, `systemd` or `systemd:<name>`; undefined for any other text. systemd's variables are removed, so that no program of this
 * process takes the sockets for its own.
 *
 * @throws UsageError if systemd passed no such socket.
 */
export function parseInherited(text: string, source: string, env: Environment): InheritedSocket | undefined {
  const [, number] = /^fd:(\d{1,9})$/.exec(text) ?? []
  if (number !== undefined) return { fd: Number(number) }
  const [matched, name] = /^systemd(?::(.*))?$/s.exec(text) ?? []
  if (matched === undefined) return undefined
  const { LISTEN_PID: owner } = env
  const sockets = activated(source, env)
  const found = name === undefined ? sockets : sockets.filter((socket) => socket.name === name)
  const [first] = found
  if (first !== undefined && found.length === 1) return first
  const names = sockets.map((socket) => `systemd:${socket.name}`).join(', ')
  if (found.length > 1) throw new UsageError(source, 'systemd passed more than one socket', `Write one of ${names}.`)
  if (sockets.length > 0) throw new UsageError(source, 'systemd passed no socket of this name', `Write one of ${names}.`)
  if (owner !== undefined && owner !== String(process.pid))
    throw new UsageError(
      source,
      `systemd passed its sockets to process ${owner}, and this is process ${process.pid}`,
      'Start upcall itself in ExecStart=, not through another program.',
    )
  throw new UsageError(source, 'systemd passed no socket', 'Start this command by a socket unit, or write an address.')
}

function activated(source: string, env: Environment): readonly (InheritedSocket & { name: string })[] {
  try {
    return listenFds({ env })
  } catch (error) {
    if (isVsockError(error)) throw UsageError.of(source, error)
    throw error
  }
}

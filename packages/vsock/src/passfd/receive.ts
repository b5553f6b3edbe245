import type { Socket } from 'node:net'
import { textOf } from '@upcall/foundation/error'
import { COMMAND_MAX, parseCommand, parsePassMessage } from '../handshake.js'
import type { Binding, Descriptor } from '../native/binding.js'

/** What a dialer wants. */
export type Request =
  | { readonly kind: 'connect'; readonly port: number }
  /** The descriptor is the callee's. */
  | { readonly kind: 'pass'; readonly port: number; readonly keep: boolean; readonly descriptor: Descriptor }
  | { readonly kind: 'refused'; readonly reason: 'bad-command' | 'bad-descriptor'; readonly why: string }
  /** It ended before it said a word. */
  | { readonly kind: 'gone' }

/** What Dragonball reads at first: the shorter of its two commands. After that it reads byte by byte, up to the newline. */
const FIRST_READ = 'passfd\n'.length

/** The descriptor of a socket that Node has not begun to read. undefined where the runtime does not show it, or there is no other to be had. */
export function duplicateOf(binding: Binding, socket: Socket): Descriptor | undefined {
  const fd = (socket as unknown as { _handle?: { fd?: unknown } | null })._handle?.fd
  if (typeof fd !== 'number' || fd < 0) return undefined
  try {
    return binding.duplicate(fd)
  } catch {
    // Out of descriptors: the dialer may want none.
    return undefined
  }
}

/**
 * Reads a dialer's command, and with `passfd` the message after it, and not a byte more: the rest is for the next reader of the socket.
 * Node's sockets drop the descriptors that come to them, so recvmsg(2) does it here. Every descriptor that was not asked for is closed.
 *
 * @param descriptor of the dialer's socket; closed afterwards.
 * @param pieces Whether a command may come in pieces.
 * @param done Called once.
 * @returns stops it; `done` is not called then.
 */
export function receiveRequest(
  binding: Binding,
  descriptor: Descriptor,
  pieces: boolean,
  done: (request: Request) => void,
): () => void {
  let received: Buffer = Buffer.alloc(0)
  let passes = false
  let stopped = false
  const stop = () => {
    stopped = true
    binding.close(descriptor)
  }
  const finish = (request: Request) => {
    stop()
    done(request)
  }
  const refuse = (reason: 'bad-command' | 'bad-descriptor', why: string) => finish({ kind: 'refused', reason, why })

  const readCommand = () => {
    const got = binding.receive(descriptor, Math.max(FIRST_READ - received.length, 1))
    if (got === undefined) {
      if (!pieces && received.length > 0) refuse('bad-command', 'the command came in more than one piece')
      return false
    }
    closeAll(binding, got.descriptors)
    if (got.bytes.length === 0) {
      if (received.length === 0) finish({ kind: 'gone' })
      else refuse('bad-command', 'the dialer ended before a newline')
      return false
    }
    received = Buffer.concat([received, got.bytes])
    const command = parseCommand(received)
    if (command.kind === 'connect') finish({ kind: 'connect', port: command.port })
    else if (command.kind === 'invalid') refuse('bad-command', command.why)
    passes = command.kind === 'passfd'
    return true
  }
  const readMessage = () => {
    // One byte more than there may be, to see whether there are more.
    const got = binding.receive(descriptor, COMMAND_MAX + 1)
    if (got === undefined) return false
    const [first, ...more] = got.descriptors
    const message = parsePassMessage(got.bytes)
    if (first && more.length === 0 && message) {
      finish({ kind: 'pass', ...message, descriptor: first })
      return false
    }
    closeAll(binding, got.descriptors)
    const text = JSON.stringify(Buffer.from(got.bytes).toString('latin1'))
    if (got.bytes.length === 0) refuse('bad-descriptor', 'the dialer ended before it sent a descriptor')
    else if (got.descriptors.length !== 1) refuse('bad-descriptor', `${got.descriptors.length} descriptors came, and one was due`)
    else refuse('bad-descriptor', `the text beside the descriptor is ${text}, not "<port>" or "<port> keep"`)
    return false
  }
  const onReady = () => {
    try {
      while (!stopped && (passes ? readMessage() : readCommand()));
    } catch (error) {
      // Too many descriptors, or the dialer reset the connection.
      refuse(passes ? 'bad-descriptor' : 'bad-command', textOf(error))
    }
  }
  try {
    binding.watch(descriptor, binding.READABLE, onReady)
  } catch (error) {
    process.nextTick(() => stopped || refuse('bad-command', textOf(error)))
  }
  return stop
}

function closeAll(binding: Binding, descriptors: readonly Descriptor[]): void {
  for (const descriptor of descriptors) binding.close(descriptor)
}

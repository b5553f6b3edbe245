import { errnoOf } from './error.js'
import type { MessageSocket } from './message-socket.js'

/** One of the two directions. */
interface Direction {
  readonly from: MessageSocket
  readonly to: MessageSocket
  /** Why `to` took no more, if messages were dropped for that. */
  dropped: Error | undefined
  /** How many bytes `to` has taken. */
  bytes: number
}

/** How many bytes each direction has carried. */
export interface Carried {
  readonly aToB: number
  readonly bToA: number
}

/**
 * Joins two sockets, both ways, a message at a time in each direction: boundaries, MSG_EOR and backpressure are kept.
 *
 * - The end of one is passed on after everything that it sent, and leaves the way back open.
 * - A socket that takes no more is still read to its end. What the other one sends meanwhile is dropped.
 * - A socket that has closed after its end closes the other one, with the reason if anything of that was dropped.
 * - A socket that fails, or closes before its end, breaks the other one off once that has taken what had come.
 * - A message that the other socket cannot take whole breaks both off (`EMSGSIZE`): no message is cut or left out.
 *
 * @returns resolves when both are closed. It never rejects.
 */
export async function joinMessages(a: MessageSocket, b: MessageSocket): Promise<Carried> {
  const there: Direction = { from: a, to: b, dropped: undefined, bytes: 0 }
  const back: Direction = { from: b, to: a, dropped: undefined, bytes: 0 }
  await Promise.all([run(there, back), run(back, there)])
  return { aToB: there.bytes, bToA: back.bytes }
}

async function run(one: Direction, other: Direction): Promise<void> {
  const { from, to } = one
  const broken = await carry(one)
  if (broken !== undefined) {
    to.destroy(broken)
    from.destroy(broken)
  }
  await from.closed
  to.destroy(from.errored ?? other.dropped)
  await to.closed
}

/** Carries messages to the end of `from`. Resolves with what broke it. */
async function carry(direction: Direction): Promise<Error | undefined> {
  const { from, to } = direction
  try {
    for (;;) {
      const message = await from.receive()
      if (message === undefined) break
      const { data, eor, sentBytes } = message
      if (sentBytes > data.length) return cutError(sentBytes, data.length)
      // A Unix socket of another program may bring an empty one. No other transport carries it, and Linux sends none over AF_VSOCK.
      if (direction.dropped !== undefined || sentBytes === 0) continue
      try {
        await to.send(data, { eor })
        direction.bytes += data.length
      } catch (error) {
        if (errnoOf(error) === 'EMSGSIZE') return error as Error
        direction.dropped = error as Error
      }
    }
    to.end()
    return undefined
  } catch (error) {
    return from.errored ?? (error as Error)
  }
}

function cutError(sent: number, had: number): Error {
  const what = `a message of ${sent} bytes did not fit the receiving socket's buffer of ${had}`
  return Object.assign(new Error(`join: ${what}`), { code: 'EMSGSIZE', subject: 'joined sockets', what })
}

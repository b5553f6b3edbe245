import type { Duplex } from 'node:stream'
import type { Dial } from '@upcall/client'
import { checkFunction, checkObject, wrongType } from '@upcall/foundation/check'
import type { Arch } from '@upcall/wire'
import { duplexPair } from './duplex-pair.js'
import { ClientGone, FakeConnection } from './fake-connection.js'

/**
 * What a guest does on one connection. A generator sends what it yields. After the script, the connection stays open and silent, like
 * that of a guest that hangs. The script may end, close or reset it instead.
 */
export type GuestScript = (connection: FakeConnection) => unknown

export interface FakeGuestOptions {
  /** The architecture by which `readRequest` and `reply` read and write CPU messages. Default x86_64. */
  arch?: Arch | undefined
}

/** A guest that is a function. */
export interface FakeGuest {
  /** Opens a connection in memory and starts the script at the guest's end. */
  readonly dial: Dial
  /** Starts the script at the guest's end of any stream. */
  serve(stream: Duplex): FakeConnection
  /** All connections so far. */
  readonly connections: readonly FakeConnection[]
  /** Closes every connection and waits for every script. Rejects with the first error of a script. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * A guest that runs `script` on each connection.
 *
 * @param script - A function, or one function for each connection in turn. The last one serves all further connections.
 */
export function fakeGuest(script: GuestScript | readonly GuestScript[], options: FakeGuestOptions = {}): FakeGuest {
  checkObject('fakeGuest: options', options)
  const { arch = 'x86_64' } = options
  if (arch !== 'x86_64' && arch !== 'aarch64') wrongType('fakeGuest: arch', "'x86_64' or 'aarch64'", arch)
  const scripts: readonly GuestScript[] = typeof script === 'function' ? [script] : script
  if (!Array.isArray(scripts)) wrongType('fakeGuest: script', 'a function or an array of functions', script)
  for (const [i, each] of scripts.entries()) checkFunction(`fakeGuest: script[${i}]`, each)
  if (scripts.length === 0) throw new TypeError('fakeGuest: script: must have at least one entry')
  const connections: FakeConnection[] = []
  const running: Promise<void>[] = []
  const failures: unknown[] = []

  function serve(stream: Duplex): FakeConnection {
    const connection = new FakeConnection(stream, connections.length + 1, arch)
    connections.push(connection)
    const own = scripts[Math.min(connections.length, scripts.length) - 1]!
    running.push(
      run(own, connection).catch((error: unknown) => {
        if (!(error instanceof ClientGone)) failures.push(error)
        // A script that failed sends nothing more. A client that waits would hide the failure with its own timeout.
        connection.close()
      }),
    )
    return connection
  }

  async function close(): Promise<void> {
    for (const connection of connections) connection.close()
    await Promise.all(running)
    if (failures.length > 0) throw failures[0]
  }

  return {
    async dial({ signal }) {
      signal.throwIfAborted()
      const [client, guest] = duplexPair()
      serve(guest)
      return client
    },
    serve,
    connections,
    close,
    [Symbol.asyncDispose]: close,
  }
}

async function run(script: GuestScript, connection: FakeConnection): Promise<void> {
  const result = script(connection)
  if (isAsyncIterable(result)) {
    for await (const bytes of result) {
      if (!(bytes instanceof Uint8Array)) throw new TypeError('fakeGuest: a generator may only yield a Uint8Array')
      await connection.write(bytes)
    }
  } else {
    await result
  }
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}

import type { Duplex } from 'node:stream'
import type { Dial } from '@upcall/client'
import type { Arch } from '@upcall/wire'
import { checkFunction, checkObject, show } from './check.js'
import { duplexPair } from './duplex-pair.js'
import { ClientGone, FakeConnection } from './fake-connection.js'

/**
 * What a guest does on one connection. A generator sends what it yields. When the script is through, the connection stays open and
 * silent, as that of a guest which hangs; end, close or reset it otherwise.
 */
export type GuestScript = (connection: FakeConnection) => unknown

export interface FakeGuestOptions {
  /** How `readRequest` and `reply` read and write CPU messages. Default x86_64. */
  arch?: Arch | undefined
}

/** A guest that is a function. */
export interface FakeGuest {
  /** Opens a connection in memory and starts the script at its other end. */
  readonly dial: Dial
  /** Starts the script at the guest's end of any stream. */
  serve(stream: Duplex): FakeConnection
  /** All connections so far. */
  readonly connections: readonly FakeConnection[]
  /** Closes every connection, waits for every script, and rejects with the first error that one failed with. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * A guest that does what `script` says, on each connection anew.
 *
 * @param script - A function, or one function for each connection in turn; the last one serves all further ones.
 */
export function fakeGuest(script: GuestScript | readonly GuestScript[], options: FakeGuestOptions = {}): FakeGuest {
  checkObject('fakeGuest: options', options)
  const { arch = 'x86_64' } = options
  if (arch !== 'x86_64' && arch !== 'aarch64')
    throw new TypeError(`fakeGuest: arch: must be 'x86_64' or 'aarch64', got ${show(arch)}`)
  const scripts: readonly GuestScript[] = typeof script === 'function' ? [script] : script
  if (!Array.isArray(scripts))
    throw new TypeError(`fakeGuest: script: must be a function or an array of them, got ${show(script)}`)
  for (const [i, each] of scripts.entries()) checkFunction(`fakeGuest: script[${i}]`, each)
  if (scripts.length === 0) throw new TypeError('fakeGuest: script: an empty list cannot serve any connection; give at least one')
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
        // A script that failed says nothing more; a client that waits for it would hide the failure behind a timeout.
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

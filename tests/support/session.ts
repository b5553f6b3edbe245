import { type ClientOptions, type Dial, isUpcallError, type ReconnectEvent, type StateName, UpcallClient } from '@upcall/client'
import { deviceManagerProtocol } from '@upcall/device-manager'
import { type FakeConnection, fakeGuest, type GuestScript, ManualClock } from '@upcall/testkit'
import type { MmioRequest, Reply, Request } from '@upcall/wire'
import { onTestFinished } from 'vitest'

export type Options = Partial<Omit<ClientOptions<Request<'x86_64'>, Reply>, 'dial' | 'service' | 'clock'>>

/** A client in virtual time, with what it told its listeners. The test closes it. */
export function openSession(dial: Dial, options: Options = {}) {
  const clock = new ManualClock()
  const client = new UpcallClient({
    dial,
    service: deviceManagerProtocol({ arch: 'x86_64' }),
    clock,
    reconnect: { random: () => 0.5 },
    ...options,
  })
  const states: StateName[] = []
  const reconnects: ReconnectEvent[] = []
  client.on('state', ({ state }) => states.push(state))
  client.on('reconnect', (event) => reconnects.push(event))
  onTestFinished(() => client.close())
  return {
    client,
    clock,
    states,
    reconnects,
    /** Sends a request and drives the clock until it settles. */
    run: (request: Request<'x86_64'>, wait?: { timeoutMs?: number; signal?: AbortSignal }) =>
      clock.drive(outcomeOf(client.request(request, wait))),
    /** Drives the clock until the service has greeted. */
    ready: () => clock.drive(client.ready()),
  }
}

/** A fake guest that the test closes; a script that failed fails the test. */
export function openGuest(script: GuestScript | readonly GuestScript[]) {
  const guest = fakeGuest(script)
  onTestFinished(() => guest.close())
  return guest
}

/** A guest that says yes to everything, until the client leaves. */
export async function yes(connection: FakeConnection): Promise<void> {
  await connection.handshake()
  await yesAgain(connection)
}

/** The same, after the greeting. */
export async function yesAgain(connection: FakeConnection): Promise<void> {
  for (;;) await connection.reply(success(await connection.readRequest()))
}

export function success(request: Request): Reply {
  if (request.type === 'RAW') return { type: 'RAW', messageType: request.messageType, result: 0, load: new Uint8Array(0) }
  return { type: request.type, result: 0 }
}

/** Request number `n`, which no other one looks like. */
export function mmio(n = 1): MmioRequest {
  return { type: 'ADD_MMIO', base: 0xd000_0000n + BigInt(n) * 0x1000n, size: 0x1000n, irq: 5 }
}

/** `ok <result>`, or `<outcome> <code>`. */
export async function outcomeOf(promise: Promise<{ result: number }>): Promise<string> {
  try {
    return `ok ${(await promise).result}`
  } catch (error) {
    if (isUpcallError(error)) return `${error.outcome} ${error.code}`
    throw error
  }
}

import type { Dial, ReconnectEvent } from '@upcall/client'
import { DeviceManager, type DeviceManagerOptions } from '@upcall/device-manager'
import { deviceManagerGuest, type SimulatedGuestOptions, simulatedGuest } from '@upcall/device-manager/guest'
import { ManualClock, settle, simulatedDial } from '@upcall/testkit'
import { type Arch, DEVICE_MANAGER_BYTE, decodeReply, decodeRequest, MESSAGE_SIZE, type Reply, type Request } from '@upcall/wire'
import { onTestFinished } from 'vitest'
import { tappedService } from '../../packages/device-manager/testing/tapped-service.js'

/** One read of the guest, as its kernel sees it. */
interface Read {
  connection: number
  bytes: Uint8Array
}

/** A simulated guest in virtual time, and its clients. The test closes all of it. */
export function simulate(options: SimulatedGuestOptions) {
  const clock = new ManualClock()
  const guest = simulatedGuest(options)
  const reads: Read[] = []
  const dial = simulatedDial(
    tappedService(deviceManagerGuest(guest), (chunk, connection) => reads.push({ connection, bytes: Uint8Array.from(chunk) })),
    { clock },
  )
  onTestFinished(() => dial.close())

  function manager<A extends Arch>(arch: A, more: Partial<DeviceManagerOptions<A>> = {}) {
    const manager = new DeviceManager({ dial: more.dial ?? dial, arch, clock, reconnect: { random: () => 0.5 }, ...more })
    const reconnects: ReconnectEvent[] = []
    manager.client.on('reconnect', (event) => reconnects.push(event))
    onTestFinished(() => manager.close())
    return Object.assign(manager, { reconnects })
  }

  return {
    clock,
    guest,
    dial,
    /** Everything the guest has read after the service bytes. */
    reads,
    /** The requests that the guest has read, in order. */
    requests: (): Request[] => reads.map(({ bytes }) => decodeRequest(bytes, options.arch)),
    manager,
    /** Drives the clock until the promise settles, and returns its value or its error. */
    settled: <T>(promise: Promise<T>): Promise<T | Error> => clock.drive(promise.catch((error: Error) => error)),
    raw: () => rawConnection(dial, options.arch),
  }
}

/** A client without any care: sends what it is told, and shows what comes back. */
async function rawConnection(dial: Dial, arch: Arch) {
  const stream = await dial({ signal: new AbortController().signal })
  onTestFinished(() => void stream.destroy())
  let received: Buffer = Buffer.alloc(0)
  stream.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk])
  })
  stream.write(Uint8Array.of(DEVICE_MANAGER_BYTE))
  await settle()
  received = received.subarray(MESSAGE_SIZE)
  return {
    /** Sends bytes in one write, and returns the whole messages that they bring at once. */
    async send(bytes: Uint8Array): Promise<Buffer[]> {
      stream.write(bytes)
      await settle()
      return this.messages()
    },
    messages(): Buffer[] {
      const messages: Buffer[] = []
      for (; received.length >= MESSAGE_SIZE; received = received.subarray(MESSAGE_SIZE)) {
        messages.push(received.subarray(0, MESSAGE_SIZE))
      }
      return messages
    },
    async reply(bytes: Uint8Array): Promise<Reply | undefined> {
      const [message] = await this.send(bytes)
      return message === undefined ? undefined : decodeReply(message, arch)
    },
  }
}

import type { UpcallClient } from '@upcall/client'
import { messageFor } from '@upcall/foundation/error'
import { ConversationPackets, captureDevices, encodeVsockPacket, isTraceError, openPcap, traceClient } from '@upcall/trace'
import type { Log } from '../log.js'
import { UsageError } from './usage-error.js'

/** A capture under way. */
export interface Capture extends AsyncDisposable {
  /** Of a simulated guest, which has no vsock device: what this client says and hears is captured from now on. */
  follow(client: UpcallClient<never, unknown>): void
}

/**
 * Opens the file of `--pcap`. A disk that fails later is logged once, and the VM goes on.
 *
 * @throws UsageError if the file cannot be written.
 */
export async function captureTo(path: string, isQemu: boolean, log: Log): Promise<Capture> {
  const onError = (error: unknown) => log.warn({ path, error: messageFor(error) }, 'the capture ended')
  try {
    return isQemu ? await ofDevices(path, onError) : await ofClient(path, onError)
  } catch (error) {
    if (!isTraceError(error)) throw error
    throw new UsageError(`--pcap: ${messageFor(error)}`)
  }
}

async function ofDevices(path: string, onError: (error: unknown) => void): Promise<Capture> {
  const capture = await captureDevices(path, { onError })
  return {
    follow() {},
    // What failed was logged when it did.
    [Symbol.asyncDispose]: () => capture.close().catch(() => {}),
  }
}

async function ofClient(path: string, onError: (error: unknown) => void): Promise<Capture> {
  const file = await openPcap(path, { onError })
  const connections = new Map<number, ConversationPackets>()
  let following: Disposable | undefined
  return {
    follow(client) {
      following = traceClient(client, (event) => {
        if (event.type === 'state') return
        const packets = connections.get(event.conn) ?? new ConversationPackets({ conn: event.conn })
        connections.set(event.conn, packets)
        const time = performance.timeOrigin + event.at
        for (const packet of packets.of(event)) file.write(time, encodeVsockPacket(packet))
        if (packets.isOver) connections.delete(event.conn)
      })
    },
    async [Symbol.asyncDispose]() {
      following?.[Symbol.dispose]()
      await file.close().catch(() => {})
    },
  }
}

import { captureDevices, type DeviceCapture, isTraceError } from '@upcall/trace'
import { UsageError } from '../../../errors.js'
import type { Journal } from './journal.js'

/**
 * Captures what passes all devices of this process, until it is closed. A capture that fails later is said once, and the devices go on.
 *
 * @throws UsageError if the file cannot be written.
 */
export async function captureTo(path: string, journal: Journal): Promise<AsyncDisposable> {
  const capture = await opened(path, journal)
  return {
    async [Symbol.asyncDispose]() {
      // It was said when it happened.
      await capture.close().catch(() => {})
      if (capture.dropped > 0) journal.captureLacks(path, capture.dropped)
    },
  }
}

async function opened(path: string, journal: Journal): Promise<DeviceCapture> {
  try {
    return await captureDevices(path, { onError: ({ what }) => journal.captureFailed(path, what) })
  } catch (error) {
    throw isTraceError(error) ? UsageError.of('--pcap', error) : error
  }
}

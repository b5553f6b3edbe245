import type { MetricsServer } from '@upcall/metrics/prometheus'
import { UsageError } from '../../../errors.js'

/**
 * Counts from now on, and serves the numbers until it is closed: one set for each guest.
 *
 * @param address - A port of 127.0.0.1, or a host and a port.
 * @throws UsageError if the address means nothing or cannot be listened on.
 */
export async function metricsAt(address: string): Promise<MetricsServer> {
  // Only --metrics needs it, and the library that it needs.
  const { exposeMetrics, isMetricsError } = await import('@upcall/metrics/prometheus')
  try {
    return await exposeMetrics(address, { perGuest: true })
  } catch (error) {
    throw isMetricsError(error) ? UsageError.of('--metrics', error) : error
  }
}

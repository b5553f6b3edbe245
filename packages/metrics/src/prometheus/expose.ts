import { parseListenAddress } from './address.js'
import { type CollectOptions, collectMetrics } from './collect.js'
import { loadPrometheus } from './load.js'
import { type MetricsServer, serveMetrics } from './serve.js'

/**
 * `collectMetrics` and `serveMetrics` in one, as a program's `--metrics <address>` wants it: counts from now on, and serves the numbers
 * until it is closed. The metrics of the process are among them, unless the options say otherwise.
 *
 * @param address - As `parseListenAddress` reads it: a port alone is one of 127.0.0.1.
 * @throws MetricsError if the address means nothing or cannot be listened on, and as `collectMetrics`.
 */
export async function exposeMetrics(address: string, options: CollectOptions = {}): Promise<MetricsServer> {
  const where = parseListenAddress(address)
  const { Registry } = await loadPrometheus('exposeMetrics')
  const { register = new Registry() } = options
  const metrics = await collectMetrics({ processMetrics: true, ...options, register })
  try {
    const server = await serveMetrics({ register, ...where })
    const close = () => {
      metrics[Symbol.dispose]()
      return server.close()
    }
    return { url: server.url, port: server.port, close, [Symbol.asyncDispose]: close }
  } catch (error) {
    metrics[Symbol.dispose]()
    throw error
  }
}

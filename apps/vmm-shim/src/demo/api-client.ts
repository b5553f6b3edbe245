import { request } from 'node:http'
import type { FaultBody } from '../api/fault.js'

export interface ApiReply {
  readonly status: number
  /** Undefined for 204. */
  readonly body: unknown
}

/** One request to a control API, as `curl --unix-socket` sends it. Rejects if there is no answer within `timeoutMs`. */
export function callApi(socketPath: string, method: string, path: string, body?: unknown, timeoutMs = 60_000): Promise<ApiReply> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(timeoutMs)
    const outgoing = request({ socketPath, method, path, signal, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.on('error', reject)
      response.on('end', () => {
        try {
          resolve({ status: response.statusCode ?? 0, body: text === '' ? undefined : JSON.parse(text) })
        } catch (error) {
          reject(error)
        }
      })
    })
    outgoing.on('error', reject)
    outgoing.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

export function isFault(body: unknown): body is FaultBody {
  return typeof body === 'object' && body !== null && 'fault_message' in body
}

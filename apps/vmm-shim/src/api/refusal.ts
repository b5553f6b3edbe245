// Bytes that are not HTTP, or too late. They belong to no request.

import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { textOf } from '@upcall/foundation/error'
import { faultOf, HttpError } from './fault.js'

/** The requests on a connection that have no answer yet. */
interface Pipeline {
  readonly open: Set<IncomingMessage>
  /** How many there have been. */
  count: number
  /** Says what is wrong with the bytes after them. */
  refuse?: (() => void) | undefined
}
const pipelines = new WeakMap<Duplex, Pipeline>()

/** A request has begun to arrive. */
export function track(request: IncomingMessage, response: ServerResponse): void {
  const pipeline = pipelines.get(request.socket) ?? { open: new Set(), count: 0 }
  pipelines.set(request.socket, pipeline)
  pipeline.open.add(request)
  pipeline.count++
  response.once('close', () => {
    pipeline.open.delete(request)
    if (!isUnderWay(pipeline)) pipeline.refuse?.()
  })
}

/** Whether a request has arrived as a whole and has no answer yet. */
function isUnderWay({ open }: Pipeline): boolean {
  return [...open].some(({ complete }) => complete)
}

/** Bytes that are not HTTP do not become a request. The answers to the requests before them come first. */
export function refuse(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable) return void socket.destroy()
  const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400
  const pipeline = pipelines.get(socket)
  if (pipeline && isUnderWay(pipeline)) {
    const { count } = pipeline
    const late = [...pipeline.open].find(({ complete }) => !complete)
    // The request that was late may have arrived by then.
    const isMended = () => status === 408 && (late ? late.complete : pipeline.count > count)
    pipeline.refuse ??= () => {
      pipeline.refuse = undefined
      if (!isMended()) refuse(error, socket)
    }
    return
  }
  const what = status === 408 ? 'it did not arrive in time' : `malformed HTTP: ${textOf(error)}`
  const text = `${JSON.stringify(faultOf(new HttpError(status, 'request', what)).body)}\n`
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nconnection: close\r\ncontent-type: application/json`
  socket.end(`${head}\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`, () => socket.destroy())
}

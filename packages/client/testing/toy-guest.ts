import { Duplex } from 'node:stream'
import type { Service } from '../src/index.js'

/** Bytes in a message of the toy service. */
export const SIZE = 4

/** A service that takes any message for the greeting, and for the reply to any request. */
export const service: Service<string, string> = {
  byte: 0x78,
  messageSize: SIZE,
  checkGreeting() {},
  encode: (_request, into) => into,
  decode: () => 'reply',
  failed: () => false,
  replyTimeoutMs: () => 1_000,
}

/** A stream to a guest that answers each write with one message. It is added to `streams`, and what is written to `written`. */
export function answering({ streams, written }: { streams?: Duplex[]; written?: Uint8Array[] } = {}): Duplex {
  const stream: Duplex = new Duplex({
    read() {},
    write(chunk, _encoding, done) {
      written?.push(chunk)
      done()
      stream.push(new Uint8Array(SIZE))
    },
  })
  streams?.push(stream)
  return stream
}

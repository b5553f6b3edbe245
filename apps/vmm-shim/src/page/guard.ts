// Who may see the page: a browser that has its URL, and asks for it by the name of this machine.

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { HttpError } from '../api/fault.js'

/** 192 bits: a path that no other program guesses. */
export function newToken(): string {
  return randomBytes(24).toString('base64url')
}

/** Sent with every answer. The page is files of its own; it needs nothing from anywhere else, and no other page may frame it. */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}

interface Asked {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
}

/** Refuses what does not come from the page itself. */
export class Guard {
  readonly #token: Buffer
  /** As in the Host header. */
  readonly #hosts: ReadonlySet<string>

  /** @param hosts - The names of this server, each with its port. */
  constructor(token: string, hosts: readonly string[]) {
    this.#token = digest(token)
    this.#hosts = new Set(hosts)
  }

  /** @throws HttpError 404 for a wrong token, 421 for another host, 403 for a change that another site asks for. */
  check({ method, url, headers }: Asked): void {
    // A site whose name was made to lead to this machine (DNS rebinding) sends its own name.
    if (!this.#hosts.has(headers.host?.toLowerCase() ?? ''))
      throw new HttpError(421, 'host', `this server is ${[...this.#hosts].join(' or ')}`)
    const token = url.split(/[/?]/, 2)[1] ?? ''
    // The time that this takes tells nothing of the token. Neither does the answer.
    if (!timingSafeEqual(digest(token), this.#token)) throw new HttpError(404, 'path', 'there is nothing here')
    if (method === 'GET' || method === 'HEAD') return
    const { origin, 'sec-fetch-site': site } = headers
    const isOwn = origin === undefined || [...this.#hosts].some((host) => origin.toLowerCase() === `http://${host}`)
    if (!isOwn || (site !== undefined && site !== 'same-origin' && site !== 'none'))
      throw new HttpError(403, 'origin', 'only the page itself may ask for changes')
  }
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

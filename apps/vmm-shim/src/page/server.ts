// The page: HTTP on the loopback interface, below a path that is a secret.

import { fileURLToPath } from 'node:url'
import { type Clock, systemClock } from '@upcall/client'
import type { DeviceManager } from '@upcall/device-manager'
import type { Vm } from '@upcall/vmm'
import type { Arch } from '@upcall/wire'
import type { FastifyReply } from 'fastify'
import { makeApp, REQUEST_MS } from '../api/app.js'
import type { ChangeWatcher } from '../api/changes.js'
import { HttpError } from '../api/fault.js'
import type { App } from '../api/routes.js'
import type { Log } from '../log.js'
import type { ShimWatcher } from '../watcher.js'
import { adviceFor } from './advice.js'
import { EventStreams } from './event-stream.js'
import type { About, PageEvents, Time } from './events.js'
import { Feed } from './feed.js'
import { readPage } from './files.js'
import { Guard, newToken, SECURITY_HEADERS } from './guard.js'
import { hostNames, hostText, type PageAddress } from './where.js'

/** Each page is one connection that stays open. */
const MAX_PAGES = 16

export interface PageOptions {
  at: PageAddress
  about: Omit<About, 'startedAt'>
  log: Log
  /** Where the built page is. Default: beside this program. */
  directory?: string | undefined
  clock?: Clock | undefined
  /** The time of day. Default `Date.now`. */
  wall?: (() => Time) | undefined
}

/** The page of one shim, while it is served. */
export class PageServer implements ShimWatcher, AsyncDisposable {
  /** What a person opens. It is a secret: it lets its reader change the VM. */
  readonly url: string
  readonly changes: ChangeWatcher
  readonly #feed: Feed
  readonly #app: App
  readonly #streams: EventStreams
  readonly #resolveVm: (vm: Vm) => void
  #closing: Promise<void> | undefined

  private constructor(url: string, app: App, feed: Feed, streams: EventStreams, resolveVm: (vm: Vm) => void) {
    this.url = url
    this.changes = feed.changes
    this.#app = app
    this.#feed = feed
    this.#streams = streams
    this.#resolveVm = resolveVm
  }

  /** @throws PageMissingError; an error of `listen` such as EADDRINUSE. Nothing is left open then. */
  static async open({ at, about, log, directory = defaultDirectory(), clock = systemClock, wall = Date.now }: PageOptions) {
    const files = readPage(directory)
    const token = newToken()
    const streams = new EventStreams(clock, MAX_PAGES)
    const feed = new Feed({
      about: { ...about, startedAt: wall() },
      clock,
      wall,
      tell: (name, data) => streams.tell(name, data),
      isWatched: () => streams.size > 0,
    })
    let resolveVm!: (vm: Vm) => void
    const vm = new Promise<Vm>((resolve) => {
      resolveVm = resolve
    })
    let guard: Guard | undefined
    const app = makeApp({
      log,
      requestTimeoutMs: REQUEST_MS,
      vm,
      prefix: `/${token}/api`,
      changes: feed.changes,
      guard: (request) => guard!.check(request),
      bodyOf: adviceFor,
      headers: { ...SECURITY_HEADERS, 'cache-control': 'no-store' },
      extend: (app) => addPageRoutes(app, { token, files, streams, feed }),
    })
    await app.listen(at)
    const port = (app.server.address() as { port: number }).port
    guard = new Guard(token, hostNames({ ...at, port }))
    return new PageServer(`http://${hostText({ ...at, port })}/${token}/`, app, feed, streams, resolveVm)
  }

  manages(manager: DeviceManager<Arch>): void {
    this.#feed.manages(manager)
  }

  serves(vm: Vm): void {
    this.#feed.serves(vm)
    this.#resolveVm(vm)
  }

  prints(text: string): void {
    this.#feed.prints(text)
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    this.#feed.close()
    this.#streams.close()
    this.#app.server.closeAllConnections()
    await this.#app.close()
  }
}

interface Parts {
  token: string
  files: ReturnType<typeof readPage>
  streams: EventStreams
  feed: Feed
}

function addPageRoutes(app: App, { token, files, streams, feed }: Parts): void {
  app.get(`/${token}`, async (_request, reply) => reply.redirect(`/${token}/`, 308))
  app.get(`/${token}/events`, (_request, reply) => {
    if (streams.isFull) throw new HttpError(503, 'page', `${MAX_PAGES} pages are open already`, { next: 'Close one of them.' })
    // While an answer before it is not done, this one has no socket whose end would end it.
    if (reply.raw.socket === null) throw new HttpError(400, 'page', 'its events need a connection of their own')
    reply.hijack()
    const tell = <Name extends keyof PageEvents>(name: Name, data: PageEvents[Name]) => streams.send(reply.raw, name, data)
    streams.add(reply.raw)
    tell('snapshot', feed.snapshot())
    // It may be old: without a page the guest is not asked.
    feed.look()
  })
  for (const [name, { type, body, isHashed }] of files) {
    const send = (_request: unknown, reply: FastifyReply) => {
      reply.type(type)
      if (isHashed) reply.header('cache-control', 'private, max-age=31536000, immutable')
      return reply.send(body)
    }
    app.get(`/${token}/${name}`, send)
    if (name === 'index.html') app.get(`/${token}/`, send)
  }
}

function defaultDirectory(): string {
  return fileURLToPath(new URL('./page/', import.meta.url))
}

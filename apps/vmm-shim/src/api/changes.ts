// What the API is asked to change, for those who watch: the page.

import type { FastifyRequest } from 'fastify'

/** Hears of every change that is asked for. */
export interface ChangeWatcher {
  /** The request is valid and is carried out now. `change`: the object that `ended` gets, too. */
  began(change: Change): void
  /** It was answered: with `error`, if it failed. A request that was wrong in itself ends without having begun. */
  ended(change: Change, answer: ChangeAnswer): void
}

export interface ChangeAnswer {
  status: number
  durationMs: number
  error?: unknown
  /** The body of a success that has one, before it became JSON. */
  result?: unknown
}

export interface Change {
  /** `drive.add`, say. */
  readonly op: string
  /** In a few words: `drive.add vdb`. */
  readonly name: string
}

/** The operations, by method and route. */
const OPS: Readonly<Record<string, string>> = {
  'PUT /vm/resize': 'vm.resize',
  'POST /vm/reconcile': 'reconcile',
  'PUT /drives/:id': 'drive.add',
  'DELETE /drives/:id': 'drive.remove',
  'PUT /pci-devices/:id': 'pci.add',
  'DELETE /pci-devices/:id': 'pci.remove',
}

/** The change that a request asks for; undefined if it asks for none. */
function changeOf({ method, routeOptions, params, body }: FastifyRequest, prefix: string): Change | undefined {
  const op = OPS[`${method} ${routeOptions.url?.slice(prefix.length)}`]
  if (op === undefined) return undefined
  const { id } = (params ?? {}) as { id?: unknown }
  const subject = typeof id === 'string' ? id.slice(0, 100) : sizesOf(body)
  return { op, name: `${op} ${subject}`.trim() }
}

/** Of each request that is a change: that it is carried out, how it went, and its end. Tells the watcher, if there is one. */
export class Changes {
  readonly #watcher: ChangeWatcher | undefined
  readonly #prefix: string
  readonly #underWay = new WeakMap<object, Change>()
  readonly #errors = new WeakMap<object, unknown>()
  readonly #results = new WeakMap<object, unknown>()

  constructor(watcher: ChangeWatcher | undefined, prefix: string) {
    this.#watcher = watcher
    this.#prefix = prefix
  }

  begins(request: FastifyRequest): void {
    const change = changeOf(request, this.#prefix)
    if (change === undefined) return
    this.#underWay.set(request, change)
    this.#watcher?.began(change)
  }

  succeeds(request: FastifyRequest, result: unknown): void {
    this.#results.set(request, result)
  }

  fails(request: FastifyRequest, error: unknown): void {
    this.#errors.set(request, error)
  }

  ends(request: FastifyRequest, status: number, durationMs: number): void {
    const change = this.#underWay.get(request) ?? changeOf(request, this.#prefix)
    if (change === undefined) return
    const error = this.#errors.get(request)
    const result = error === undefined ? this.#results.get(request) : undefined
    this.#watcher?.ended(change, {
      status,
      durationMs,
      ...(error !== undefined && { error }),
      ...(result !== undefined && { result }),
    })
  }
}

function sizesOf(body: unknown): string {
  const { desired_vcpus: cpus, desired_ram: bytes } = (body ?? {}) as { desired_vcpus?: unknown; desired_ram?: unknown }
  const parts = [
    ...(typeof cpus === 'number' ? [`${cpus} vCPUs`] : []),
    ...(typeof bytes === 'number' ? [`${bytes} bytes of memory`] : []),
  ]
  return parts.join(' and ')
}

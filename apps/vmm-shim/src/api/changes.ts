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
export function changeOf({ method, routeOptions, params, body }: FastifyRequest, prefix: string): Change | undefined {
  const op = OPS[`${method} ${routeOptions.url?.slice(prefix.length)}`]
  if (op === undefined) return undefined
  const { id } = (params ?? {}) as { id?: unknown }
  const subject = typeof id === 'string' ? id.slice(0, 100) : sizesOf(body)
  return { op, name: `${op} ${subject}`.trim() }
}

function sizesOf(body: unknown): string {
  const { desired_vcpus: cpus, desired_ram: bytes } = (body ?? {}) as { desired_vcpus?: unknown; desired_ram?: unknown }
  const parts = [
    ...(typeof cpus === 'number' ? [`${cpus} vCPUs`] : []),
    ...(typeof bytes === 'number' ? [`${bytes} bytes of memory`] : []),
  ]
  return parts.join(' and ')
}

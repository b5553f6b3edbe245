import type { IncomingMessage, ServerResponse } from 'node:http'
import { formatBdf } from '@upcall/device-manager'
import type { Vm } from '@upcall/vmm'
import type { FastifyBaseLogger, FastifyInstance, FastifyTypeProvider, RawServerDefault } from 'fastify'
import type * as v from 'valibot'
import { HttpError } from './fault.js'
import {
  Fault,
  Id,
  NoContent,
  Nothing,
  PluggedDrive,
  PluggedPciDevice,
  PutDrive,
  PutPciDevice,
  Reconciled,
  Resize,
  Resized,
  VmDescription,
} from './schemas.js'
import { vmBody, windowBody } from './view.js'

/** Handlers see what the schemas of their routes let through. */
export interface SchemaTypes extends FastifyTypeProvider {
  validator: this['schema'] extends v.GenericSchema ? v.InferOutput<this['schema']> : unknown
  serializer: this['schema'] extends v.GenericSchema ? v.InferOutput<this['schema']> : unknown
}

export type App = FastifyInstance<RawServerDefault, IncomingMessage, ServerResponse, FastifyBaseLogger, SchemaTypes>

/** The routes of the control API. A change that has begun is carried through, even if the client hangs up. */
export function addRoutes(app: App, vm: () => Vm): void {
  addVmRoutes(app, vm)
  addDriveRoutes(app, vm)
  addPciRoutes(app, vm)
}

const fails = { '4xx': Fault, '5xx': Fault }

function addVmRoutes(app: App, vm: () => Vm): void {
  app.get(
    '/vm',
    {
      schema: {
        summary: 'The VM: what the VMM believes, and what the guest reports',
        response: { 200: VmDescription, ...fails },
      },
    },
    async () => vmBody(await vm().view()),
  )

  app.put(
    '/vm/resize',
    {
      schema: {
        summary: 'Changes the number of vCPUs, the memory, or both as one change',
        body: Resize,
        response: { 200: Resized, 204: NoContent, ...fails },
      },
    },
    async ({ body: { desired_vcpus, desired_ram } }, reply) => {
      if (desired_ram !== undefined) vm().checkMemory(desired_ram)
      if (desired_vcpus !== undefined)
        return desired_ram === undefined ? vm().resize(desired_vcpus) : vm().resizeBoth(desired_vcpus, desired_ram)
      if (desired_ram !== undefined) await vm().resizeMemory(desired_ram)
      return reply.code(204).send()
    },
  )

  app.post(
    '/vm/reconcile',
    {
      schema: {
        summary: 'Settles what is unknown, and tells where the VMM and the guest differ',
        body: Nothing,
        response: { 200: Reconciled, ...fails },
      },
    },
    async () => vm().reconcile(),
  )
}

function addDriveRoutes(app: App, vm: () => Vm): void {
  app.put(
    '/drives/:id',
    {
      schema: {
        summary: 'Plugs a virtio-mmio disk in',
        params: Id,
        body: PutDrive,
        response: { 200: PluggedDrive, ...fails },
      },
    },
    async ({ params: { id }, body: { path_on_host: pathOnHost, is_read_only: isReadOnly } }) => {
      const { window } = await vm().addDrive(id, { pathOnHost, isReadOnly })
      return { id, ...windowBody(window) }
    },
  )

  app.delete(
    '/drives/:id',
    { schema: { summary: 'Removes a disk', params: Id, body: Nothing, response: { 204: NoContent, ...fails } } },
    async ({ params: { id } }, reply) => {
      await vm().removeDrive(id)
      return reply.code(204).send()
    },
  )
}

function addPciRoutes(app: App, vm: () => Vm): void {
  app.put(
    '/pci-devices/:id',
    {
      schema: {
        summary: 'Plugs a PCI device in: a disk if it has a path_on_host',
        params: Id,
        body: PutPciDevice,
        response: { 200: PluggedPciDevice, ...fails },
      },
    },
    async ({ params: { id }, body: { bdf, path_on_host: pathOnHost, is_read_only: isReadOnly = false } }) => {
      const disk = pathOnHost === undefined ? undefined : { pathOnHost, isReadOnly }
      const { place } = await vm().addPci(id, { bdf, disk })
      return { id, bdf: formatBdf(place) }
    },
  )

  app.delete(
    '/pci-devices/:id',
    { schema: { summary: 'Removes a PCI device', params: Id, body: Nothing, response: { 204: NoContent, ...fails } } },
    async ({ params: { id } }, reply) => {
      await vm().removePci(id)
      return reply.code(204).send()
    },
  )
}

/**
 * Answers every other method of a resource with 405, and every other path with 404, before the body is read. Call it before the routes
 * are added.
 */
export function refuseOthers(app: App): void {
  const resources = new Map<string, string[]>()
  app.addHook('onRoute', ({ url, method }) => {
    resources.set(url, [...(resources.get(url) ?? []), ...[method].flat()])
  })
  app.addHook('onRequest', async ({ method, url, is404 }) => {
    if (!is404) return
    const path = url.split('?', 1)[0]!
    const segments = path.split('/')
    const found = [...resources].find(([pattern]) => matches(pattern.split('/'), segments))
    if (found === undefined) {
      const next = `The resources are ${[...resources.keys()].join(', ')}.`
      throw new HttpError(404, path, 'there is no such resource', { next })
    }
    const allow = found[1].join(', ')
    throw new HttpError(405, `${method} ${path}`, 'the resource does not have this method', {
      next: `It takes ${allow}.`,
      headers: { allow },
    })
  })
}

function matches(pattern: readonly string[], segments: readonly string[]): boolean {
  return pattern.length === segments.length && pattern.every((name, at) => name.startsWith(':') || name === segments[at])
}

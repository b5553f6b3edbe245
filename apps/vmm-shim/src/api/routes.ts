import { formatBdf } from '@upcall/device-manager'
import type { Vm } from '@upcall/vmm'
import * as v from 'valibot'
import { HttpError } from './fault-message.js'
import { vmBody, windowBody } from './view.js'

/** A success: 204 where there is nothing to say, else 200. */
type Answer = { readonly status: 204 } | { readonly status: 200; readonly body: unknown }

type Handler = (vm: Vm, request: { id: string; body: unknown }) => Promise<Answer>

interface Route {
  /** Segments; `:id` stands for any one. */
  readonly path: readonly string[]
  readonly methods: Readonly<Record<string, Handler>>
}

const Id = v.pipe(v.string(), v.regex(/^[A-Za-z0-9._-]{1,64}$/, 'must be 1 to 64 letters, digits, dots, dashes or underscores'))
const Count = v.pipe(v.number('must be a number'), v.safeInteger('must be an integer'), v.minValue(1, 'must be at least 1'))

/** A body with these keys, some of them optional, and no others. */
function body<E extends v.ObjectEntries>(entries: E) {
  const known = Object.keys(entries)
  return v.strictObject(entries, ({ expected, path }) => {
    if (expected === 'never')
      return known.length > 0 ? `is not known here; there are ${known.join(', ')}` : 'is not known here; nothing is'
    return path ? 'is missing' : 'must be a JSON object'
  })
}

const Resize = v.pipe(
  body({ desired_vcpus: v.optional(Count), desired_ram: v.optional(Count) }),
  v.check(
    ({ desired_vcpus, desired_ram }) => desired_vcpus !== undefined || desired_ram !== undefined,
    'must have desired_vcpus, desired_ram or both',
  ),
)
const Path = v.pipe(
  v.string('must be a string'),
  v.regex(/^[^\0]{1,4095}$/, 'must be a path of 1 to 4095 characters, without NUL'),
)
const Flag = v.boolean('must be true or false')
const PutDrive = body({ path_on_host: Path, is_read_only: v.optional(Flag, false) })
const PutPciDevice = v.pipe(
  body({
    bdf: v.optional(v.string('must be an address such as "00:05.0"')),
    path_on_host: v.optional(Path),
    is_read_only: v.optional(Flag),
  }),
  v.check(
    ({ path_on_host, is_read_only }) => path_on_host !== undefined || is_read_only === undefined,
    'is_read_only is for a disk, which has a path_on_host',
  ),
)
const Nothing = v.optional(body({}))

const NO_CONTENT: Answer = { status: 204 }
const ok = (body: unknown): Answer => ({ status: 200, body })

const ROUTES: readonly Route[] = [
  {
    path: ['vm'],
    methods: { GET: async (vm) => ok(vmBody(await vm.view())) },
  },
  {
    path: ['vm', 'resize'],
    methods: {
      async PUT(vm, { body }) {
        const { desired_vcpus, desired_ram } = read(Resize, body)
        if (desired_ram !== undefined) vm.checkMemory(desired_ram)
        if (desired_vcpus !== undefined && desired_ram !== undefined) return ok(await vm.resizeBoth(desired_vcpus, desired_ram))
        if (desired_vcpus !== undefined) return ok(await vm.resize(desired_vcpus))
        if (desired_ram !== undefined) await vm.resizeMemory(desired_ram)
        return NO_CONTENT
      },
    },
  },
  {
    path: ['vm', 'reconcile'],
    methods: {
      async POST(vm, { body }) {
        read(Nothing, body)
        return ok(await vm.reconcile())
      },
    },
  },
  {
    path: ['drives', ':id'],
    methods: {
      async PUT(vm, { id, body }) {
        const { path_on_host: pathOnHost, is_read_only: isReadOnly } = read(PutDrive, body)
        const drive = await vm.addDrive(id, { pathOnHost, isReadOnly })
        return ok({ id, ...windowBody(drive.window) })
      },
      async DELETE(vm, { id, body }) {
        read(Nothing, body)
        await vm.removeDrive(id)
        return NO_CONTENT
      },
    },
  },
  {
    path: ['pci-devices', ':id'],
    methods: {
      async PUT(vm, { id, body }) {
        const { bdf, path_on_host: pathOnHost, is_read_only: isReadOnly = false } = read(PutPciDevice, body ?? {})
        const { place } = await vm.addPci(id, { bdf, disk: pathOnHost === undefined ? undefined : { pathOnHost, isReadOnly } })
        return ok({ id, bdf: formatBdf(place) })
      },
      async DELETE(vm, { id, body }) {
        read(Nothing, body)
        await vm.removePci(id)
        return NO_CONTENT
      },
    },
  },
]

/** Who answers this request. @throws HttpError 404, 405 or 400 for a path, a method or an id that is not there. */
export function findRoute(method: string, url: string): { handle: Handler; id: string } {
  const path = url.split('?', 1)[0]!
  const segments = path.split('/').slice(1)
  const route = ROUTES.find((route) => matches(route, segments))
  if (!route) {
    const known = ROUTES.map((route) => `/${route.path.join('/')}`).join(', ')
    throw new HttpError(404, `${path}: there is no such resource; there are ${known}`)
  }
  const handle = Object.hasOwn(route.methods, method) ? route.methods[method] : undefined
  if (!handle) {
    const allow = Object.keys(route.methods).join(', ')
    throw new HttpError(405, `${method} ${path}: this resource takes ${allow}`, { allow })
  }
  const at = route.path.indexOf(':id')
  return { handle, id: at < 0 ? '' : read(Id, decode(segments[at]!), 'id') }
}

function matches({ path }: Route, segments: readonly string[]): boolean {
  return path.length === segments.length && path.every((name, at) => name === ':id' || name === segments[at])
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    throw new HttpError(400, `id: ${segment} is not percent-encoded as it should be`)
  }
}

/** @throws HttpError 400 that names the first thing that is wrong, and what is allowed. */
function read<S extends v.GenericSchema>(schema: S, value: unknown, name = 'body'): v.InferOutput<S> {
  const result = v.safeParse(schema, value)
  if (result.success) return result.output
  const issue = result.issues[0]
  throw new HttpError(400, `${v.getDotPath(issue) ?? name}: ${issue.message}`)
}

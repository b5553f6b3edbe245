import { toJsonSchema } from '@valibot/to-json-schema'
import * as v from 'valibot'
import { HttpError } from './fault.js'

// What requests and answers look like. The same schemas check requests, type their handlers, and become the OpenAPI document.

/** An object with these keys, some of them optional, and no others. */
function object<E extends v.ObjectEntries>(entries: E) {
  const known = Object.keys(entries)
  return v.strictObject(entries, ({ expected, path }) => {
    if (expected === 'never')
      return known.length > 0 ? `is not a key here; the keys are ${known.join(', ')}` : 'is not a key here; there are none'
    return path ? 'is missing' : 'must be a JSON object'
  })
}

const Count = v.pipe(v.number('must be a number'), v.safeInteger('must be an integer'), v.minValue(1, 'must be at least 1'))
const Path = v.pipe(
  v.string('must be a string'),
  v.regex(/^[^\0]{1,4095}$/, 'must be a path of 1 to 4095 characters, without NUL'),
)
const Flag = v.boolean('must be true or false')
const Bdf = v.pipe(v.string('must be an address such as "00:05.0"'), v.examples(['00:05.0']))

export const Id = object({
  id: v.pipe(v.string(), v.regex(/^[A-Za-z0-9._-]{1,64}$/, 'must be 1 to 64 letters, digits, dots, dashes or underscores')),
})

export const Resize = v.pipe(
  object({
    desired_vcpus: v.optional(Count),
    desired_ram: v.optional(v.pipe(Count, v.description('Bytes.'))),
  }),
  v.check(
    ({ desired_vcpus, desired_ram }) => desired_vcpus !== undefined || desired_ram !== undefined,
    'must have desired_vcpus, desired_ram or both',
  ),
  v.description('It has desired_vcpus, desired_ram or both.'),
)

export const PutDrive = object({ path_on_host: Path, is_read_only: v.optional(Flag, false) })

export const PutPciDevice = v.optional(
  v.pipe(
    object({ bdf: v.optional(Bdf), path_on_host: v.optional(Path), is_read_only: v.optional(Flag) }),
    v.check(
      ({ path_on_host, is_read_only }) => path_on_host !== undefined || is_read_only === undefined,
      'is_read_only is for a disk, which has a path_on_host',
    ),
  ),
  {},
)

export const Nothing = v.optional(object({}))

/** A list in an answer. */
const list = <S extends v.GenericSchema>(schema: S) => v.pipe(v.array(schema), v.readonly())

const Ids = list(v.number())
const Hex = v.pipe(v.string(), v.examples(['0xd0000000']))
/** A window: hexadecimal strings, since JSON numbers are not exact above 2^53. */
export const Window = v.object({ base: Hex, size: Hex, irq: v.number() })
const Status = v.picklist(['adding', 'present', 'removing', 'unknown'])

export const Fault = v.pipe(
  v.object({
    fault_message: v.string(),
    code: v.pipe(
      v.string(),
      v.description('What went wrong: docs/errors.md has an entry for each code.'),
      v.examples(['CONFLICT']),
    ),
    outcome: v.pipe(
      v.picklist(['not-sent', 'guest-error', 'indeterminate']),
      v.description('What is known of the request to the guest.'),
    ),
    errno: v.pipe(v.nullable(v.number()), v.description("The guest's result if it refused: a negative errno, -1 or +1.")),
  }),
  v.description('The request failed.'),
)

export const Resized = v.object({ added: Ids, removed: Ids, present: Ids })
export const PluggedDrive = v.object({ id: v.string(), ...Window.entries })
export const PluggedPciDevice = v.object({ id: v.string(), bdf: Bdf })

export const VmDescription = v.object({
  state: v.picklist(['booting', 'running', 'reconnecting', 'paused', 'dead']),
  arch: v.picklist(['x86_64', 'aarch64']),
  believed: v.pipe(
    v.object({
      cpus: v.object({ present: Ids, unknown: Ids, max: v.number() }),
      memory: v.number(),
      mmio: list(
        v.object({ id: v.string(), ...Window.entries, path_on_host: v.string(), is_read_only: v.boolean(), status: Status }),
      ),
      pci: list(
        v.object({
          id: v.string(),
          bdf: Bdf,
          path_on_host: v.optional(v.string()),
          is_read_only: v.optional(v.boolean()),
          status: Status,
        }),
      ),
      spares: v.object({ cpus: Ids, pci: list(Bdf) }),
    }),
    v.description(
      'What the VMM believes. memory is in bytes. spares are plugged in and not in use: the guest has not ejected them.',
    ),
  ),
  guest: v.pipe(
    v.nullable(
      v.object({
        booted: v.boolean(),
        paused: v.boolean(),
        crashed: v.boolean(),
        cpus: v.object({ online: Ids, present: v.optional(Ids) }),
        mmio: list(Window),
        pci: list(Bdf),
        memory: v.optional(v.number()),
        blocks: v.optional(list(v.object({ name: v.string(), serial: v.nullable(v.string()), size: v.number() }))),
      }),
    ),
    v.description('What the guest reports; null if it cannot report. Only a real guest reports memory, in bytes, and blocks.'),
  ),
})

const Kind = v.picklist(['cpu', 'mmio', 'pci'])

export const Reconciled = v.object({
  restarted: v.boolean(),
  settled: list(v.object({ kind: Kind, id: v.string(), now: v.picklist(['present', 'absent']) })),
  differences: list(v.object({ kind: Kind, id: v.string(), only: v.picklist(['vmm', 'guest']) })),
})

export const NoContent = v.undefined()

/** @throws HttpError 400 that names the first thing that is wrong, and what is allowed. */
export function read<S extends v.GenericSchema>(schema: S, value: unknown, name: string): v.InferOutput<S> {
  const result = v.safeParse(schema, value)
  if (result.success) return result.output
  const issue = result.issues[0]
  throw new HttpError(400, v.getDotPath(issue) ?? name, issue.message)
}

/** The schema for an OpenAPI document. What JSON Schema cannot say is in the descriptions. */
export function jsonSchemaOf(schema: v.GenericSchema): object {
  if (schema === NoContent) return { type: 'null', description: 'Done.' }
  return toJsonSchema(schema, { errorMode: 'ignore', typeMode: 'input' })
}

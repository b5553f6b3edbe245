import type { NotifyMessage } from './message.js'

/** What a guest has told of itself so far. */
export interface GuestBoot {
  /** Its CID; undefined over hybrid vsock. */
  readonly cid: number | undefined
  /** The last value of each name, without a prototype: `READY`, `STATUS`, `X_SYSTEMD_HOSTNAME`, `EXIT_STATUS`, … */
  readonly fields: Readonly<Record<string, string>>
  /** Units that are active, in order of their messages (`X_SYSTEMD_UNIT_ACTIVE=`; systemd 256 tells of targets). */
  readonly units: readonly string[]
  /** How many messages came. */
  readonly messages: number
}

/** What became of a boot. */
export type BootVerdict =
  | { readonly kind: 'waiting' }
  /** `doubtful`: the next message may say that it is not. */
  | { readonly kind: 'ready'; readonly doubtful: boolean }
  /** The guest is up and not as it should be. */
  | { readonly kind: 'failed'; readonly what: string }
  /** The guest goes down, or has gone down. */
  | { readonly kind: 'stopped'; readonly what: string }

/** What one guest can make this process keep: names and units, and the characters of all of them. */
const KEPT_NAMES = 64
const KEPT_UNITS = 256
const KEPT = 16_384
const ACTIVE = 'X_SYSTEMD_UNIT_ACTIVE'
const INACTIVE = 'X_SYSTEMD_UNIT_INACTIVE'
/** Where systemd ends up if the boot fails. It says READY=1 there, too. */
const TROUBLE = ['emergency.target', 'rescue.target']
const WAITING: BootVerdict = { kind: 'waiting' }

export function newBoot(cid: number | undefined): GuestBoot {
  return { cid, fields: Object.create(null), units: [], messages: 0 }
}

/**
 * The boot after one more message. What does not fit into the bounds of a guest is passed over. systemd says EXIT_STATUS= last, so
 * what a guest says later is of its next boot.
 */
export function toldBoot(boot: GuestBoot, { fields }: NotifyMessage): GuestBoot {
  if (boot.fields.EXIT_STATUS !== undefined) return toldBoot(newBoot(boot.cid), { fields, from: {} })
  const kept: Record<string, string> = Object.assign(Object.create(null), boot.fields)
  let room = KEPT - sizeOf(boot)
  let names = Object.keys(kept).length
  for (const [name, value] of Object.entries(fields)) {
    if (name === ACTIVE || name === INACTIVE) continue
    const known = kept[name]
    const more = value.length - (known?.length ?? -name.length)
    if (more > room || (known === undefined && ++names > KEPT_NAMES)) continue
    room -= more
    kept[name] = value
  }
  const { [ACTIVE]: active, [INACTIVE]: inactive } = fields
  let units = boot.units
  if (inactive !== undefined) units = units.filter((unit) => unit !== inactive)
  if (active !== undefined) {
    const others = units.filter((unit) => unit !== active)
    if (active.length <= room && others.length < KEPT_UNITS) units = [...others, active]
  }
  return { cid: boot.cid, fields: kept, units, messages: boot.messages + 1 }
}

function sizeOf({ fields, units }: GuestBoot): number {
  let size = 0
  for (const [name, value] of Object.entries(fields)) size += name.length + value.length
  for (const unit of units) size += unit.length
  return size
}

/**
 * Whether the guest is ready, by what it said. With `unit`, that unit has to be active, too, be it a sign of trouble otherwise.
 *
 * systemd says READY=1 in emergency mode as well, and only then that emergency.target is active. Up to basic.target it has then not
 * come. EXIT_STATUS= and X_SYSTEMD_SHUTDOWN= are from systemd-shutdown; STOPPING=1 and ERRNO= are other programs' words, from sd_notify(3).
 */
export function verdictOf({ fields, units }: GuestBoot, unit?: string): BootVerdict {
  const { READY, STOPPING, ERRNO, EXIT_STATUS, X_SYSTEMD_SHUTDOWN } = fields
  if (EXIT_STATUS !== undefined) return { kind: 'stopped', what: `it has gone down (${shown('EXIT_STATUS', EXIT_STATUS)})` }
  if (X_SYSTEMD_SHUTDOWN !== undefined)
    return { kind: 'stopped', what: `it goes down (${shown('X_SYSTEMD_SHUTDOWN', X_SYSTEMD_SHUTDOWN)})` }
  if (STOPPING === '1') return { kind: 'stopped', what: 'it goes down (STOPPING=1)' }
  if (ERRNO !== undefined && ERRNO !== '0') return { kind: 'failed', what: `it reports a failure (${shown('ERRNO', ERRNO)})` }
  const trouble = units.find((each) => TROUBLE.includes(each) && each !== unit)
  if (trouble !== undefined) return { kind: 'failed', what: `its boot ended in ${trouble}` }
  if (READY !== '1' || (unit !== undefined && !units.includes(unit))) return WAITING
  // Before version 256 systemd tells of no unit at all.
  return { kind: 'ready', doubtful: unit === undefined && tellsUnits(fields) && !units.includes('basic.target') }
}

const tellsUnits = ({ X_SYSTEMD_SIGNALS_LEVEL }: GuestBoot['fields']) => X_SYSTEMD_SIGNALS_LEVEL !== undefined

const SHOWN = 40

/** A guest's text in a message for a person: one line without control characters, and short. */
export function shown(name: string, value: string): string {
  const text = value.replace(/[^\x20-\x7e]/g, '?')
  return `${name}=${text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text}`
}

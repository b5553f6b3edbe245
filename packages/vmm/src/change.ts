// The order of things around an upcall. What comes in is plugged in first and announced then; what goes out is released by the guest
// first and unplugged then. Before each step the state is saved, so that a controller that dies in the middle finds what it has to ask.

import { isUpcallError } from '@upcall/client'
import { type GuestError, isGuestError } from '@upcall/device-manager'
import { textOf } from '@upcall/foundation/error'
import { isWireError } from '@upcall/wire'
import type { DeviceStatus } from './devices.js'
import { isVmError, VmError } from './error.js'
import type { GuestReport } from './port.js'

/** What a change is called in its errors. */
export interface About {
  readonly op: string
  readonly subject: string
}

/** What a change happens to and with. */
export interface Context<E> {
  readonly about: About
  /** Aborts when the guest that is to be asked is gone, or the caller gives up. */
  readonly signal: AbortSignal
  /** Saves the state before something is done. */
  save(): Promise<void>
  /** Saves the state after something was done. Never rejects: what was saved last is still true. */
  noted(): Promise<void>
  /** What the guest says it has; undefined if it does not say. */
  report(): Promise<GuestReport | undefined>
  add(entry: E): void
  delete(entry: E): void
}

interface Entry {
  status: DeviceStatus
}

/** How something comes into the VM: hardware first, then the guest. */
export interface Arrival<E> {
  readonly entry: E
  plug(): Promise<void>
  announce(signal: AbortSignal): Promise<unknown>
  unplug(): Promise<void>
  /** Whether the guest has it although it refused. Default: it has not. */
  isThere?(guest: GuestReport): boolean
}

/** How something goes out of the VM: the guest lets go, then the hardware. */
export interface Departure<E> {
  readonly entry: E
  release(signal: AbortSignal): Promise<unknown>
  /** Whether the guest does not have it although it refused; `guest` is undefined if it does not say what it has. */
  isGone(refusal: GuestError, guest: GuestReport | undefined): boolean
  unplug(): Promise<void>
}

/** When the guest refuses, or was not asked, everything is as it was before. If it is unknown what the guest did, the hardware stays. */
export async function bringIn<E extends Entry>(context: Context<E>, arrival: Arrival<E>): Promise<void> {
  const { entry } = arrival
  entry.status = 'adding'
  context.add(entry)
  try {
    await saved(context)
    await plugged(context.about, arrival)
  } catch (error) {
    context.delete(entry)
    await context.noted()
    throw error
  }
  try {
    await arrival.announce(context.signal)
    entry.status = 'present'
  } catch (error) {
    await settleArrival(context, arrival, error)
  } finally {
    await context.noted()
  }
}

/** Resolves if the guest has it after all. */
async function settleArrival<E extends Entry>(context: Context<E>, arrival: Arrival<E>, error: unknown): Promise<void> {
  const { entry } = arrival
  const failed: unknown[] = []
  if (isGuestError(error) && arrival.isThere) {
    // A guest also refuses what is so already, say because a udev rule has brought the vCPU online.
    const guest = await context.report().catch((cause) => void failed.push(cause))
    if (guest && arrival.isThere(guest)) {
      entry.status = 'present'
      return
    }
  }
  if (mayHaveHappened(error)) {
    entry.status = 'unknown'
  } else {
    await arrival.unplug().catch((cause) => failed.push(cause))
    context.delete(entry)
  }
  throw failed.length === 0 ? error : incomplete(context.about, [error, ...failed])
}

/** When the guest refuses, everything is as it was before. If it is unknown what the guest did, the hardware stays. */
export async function bringOut<E extends Entry>(context: Context<E>, departure: Departure<E>): Promise<void> {
  const { entry } = departure
  const before = entry.status
  entry.status = 'removing'
  try {
    await saved(context)
  } catch (error) {
    entry.status = before
    throw error
  }
  try {
    await released(context, departure)
    try {
      await departure.unplug()
    } catch (error) {
      entry.status = 'unknown'
      throw incomplete(context.about, [error])
    }
    context.delete(entry)
  } finally {
    await context.noted()
  }
}

async function released<E extends Entry>(context: Context<E>, { entry, release, isGone }: Departure<E>): Promise<void> {
  try {
    await release(context.signal)
  } catch (error) {
    entry.status = mayHaveHappened(error) ? 'unknown' : 'present'
    if (!isGuestError(error)) throw error
    // Another program in the guest, such as its own hotplug, may have removed the device already.
    const failed: unknown[] = []
    const guest = await context.report().catch((cause) => void failed.push(cause))
    if (failed.length > 0) throw incomplete(context.about, [error, ...failed])
    if (!isGone(error, guest ?? undefined)) throw error
  }
}

async function saved<E>({ about, save }: Context<E>): Promise<void> {
  try {
    await save()
  } catch (cause) {
    const what = `the state could not be saved: ${textOf(cause)}`
    throw new VmError({ ...about, code: 'UNSAVED', what, next: 'Nothing was changed.', cause })
  }
}

async function plugged<E>(about: About, { plug }: Arrival<E>): Promise<void> {
  try {
    await plug()
  } catch (cause) {
    if (isVmError(cause)) throw cause
    const what = `the hardware could not be plugged in: ${textOf(cause)}`
    throw new VmError({ ...about, code: 'NOT_READY', what, next: 'The guest was not asked.', cause })
  }
}

/** More than one thing failed, or the guest did what it was asked and the hardware did not follow. */
export function incomplete(about: About, errors: readonly unknown[], then?: { what?: string; next?: string }): VmError {
  const [first, ...others] = errors
  const what = [textOf(first), ...others.map((error) => `then ${textOf(error)}`), ...(then?.what ? [then.what] : [])].join('; ')
  const outcome = isUpcallError(first) || isVmError(first) ? first.outcome : 'indeterminate'
  return new VmError({ ...about, code: 'INCOMPLETE', what, next: then?.next, errors, outcome, cause: first })
}

/** Whether the guest may have done what it was asked. +1 says that it has another idea of a vCPU than the VMM. */
function mayHaveHappened(error: unknown): boolean {
  // An error of another kind came before the guest was asked.
  if (isWireError(error) || !isUpcallError(error)) return false
  return error.outcome === 'indeterminate' || (isGuestError(error) && error.errno > 0)
}

// Where things go: rules about addresses and sizes of each kind of machine. They change nothing.

import { type Bdf, formatBdf } from '@upcall/device-manager'
import { unpackDevfn } from '@upcall/wire'
import { VmError } from '../error.js'
import { nextFunction, parseAddress, sameFunction } from '../pci-bus.js'
import { type Hardware, listPlaces, MEMORY_BLOCK, portPlaces, type ShimMachine } from './hardware.js'

/** PCI functions that are not free. */
export interface Occupied {
  /** Those that the VM's devices have. */
  readonly taken: readonly Bdf[]
  /** Those of devices that the guest has not ejected yet. */
  readonly leaving: readonly Bdf[]
  /** The machine's own. */
  readonly fixed: readonly Bdf[]
}

/** The place of that address, or without one a free place, if there is any. @throws VmError `INVALID` or `CONFLICT` */
export function choosePlace(machine: ShimMachine, occupied: Occupied, bdf: string | undefined): Bdf | undefined {
  if (machine === 'microvm')
    throw new VmError({
      ...{ code: 'INVALID', subject: 'PCI device', what: 'a microvm has no PCI bus' },
      next: 'Add a virtio-mmio drive, or use a q35 or pc.',
    })
  const place = bdf === undefined ? undefined : parseAddress(bdf)
  if (place && isAmong(occupied.leaving, place))
    throw refusal('CONFLICT', place, 'the guest has not ejected the last device there yet', 'Choose another address.')
  return machine === 'q35' ? behindPorts(occupied, place) : onRootBus(occupied, place)
}

function behindPorts({ taken, leaving }: Occupied, place: Bdf | undefined): Bdf | undefined {
  const places = portPlaces()
  if (!place) return places.find((each) => !isAmong([...taken, ...leaving], each))
  if (isAmong(places, place)) return place
  throw refusal('INVALID', place, 'a q35 takes devices on the buses of its ports only', `Choose one of ${listPlaces(places)}.`)
}

function onRootBus({ taken, leaving, fixed }: Occupied, place: Bdf | undefined): Bdf | undefined {
  if (!place) return nextFunction([...taken, ...leaving, ...fixed])
  const { slot, function: fn } = unpackDevfn(place.devfn)
  if (place.bus !== 0 || fn !== 0)
    throw refusal('INVALID', place, 'this machine has no such place', 'Choose one of 00:01.0 to 00:1f.0.')
  if (fixed.some((other) => other.bus === 0 && unpackDevfn(other.devfn).slot === slot))
    throw refusal('CONFLICT', place, "the machine's own device is there", 'Choose another address, or none.')
  return place
}

/** @throws VmError `INVALID` unless the machine can have so many bytes. */
export function checkMemory({ machine, memory: { boot, max } }: Hardware, bytes: number): void {
  const invalid = (what: string) => new VmError({ code: 'INVALID', op: 'vm.resize', subject: `${bytes} bytes of memory`, what })
  if (machine === 'microvm' && bytes !== boot) throw invalid(`a microvm's memory stays at ${boot} bytes`)
  if (bytes < boot || bytes > max) throw invalid(`this VM can have ${boot} to ${max} bytes`)
  if ((bytes - boot) % MEMORY_BLOCK !== 0) throw invalid(`what is over ${boot} comes in blocks of ${MEMORY_BLOCK} bytes`)
}

function isAmong(places: readonly Bdf[], place: Bdf): boolean {
  return places.some((other) => sameFunction(other, place))
}

function refusal(code: 'INVALID' | 'CONFLICT', place: Bdf, what: string, next: string): VmError {
  return new VmError({ code, op: 'bdf', subject: formatBdf(place), what, next })
}

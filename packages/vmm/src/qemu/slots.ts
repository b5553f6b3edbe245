import type { QmpClient } from '@upcall/qemu'
import type { Drive } from '../devices.js'
import { VmError } from '../error.js'
import type { Window } from '../mmio-space.js'
import { blockName, blockNode } from './hardware.js'
import { addBlockNode, mayBeDone, removeBlockNode } from './plugging.js'

/** QEMU 7.2, hw/i386/microvm: without ACPI there are eight transports of 512 bytes, on the legacy lines from 5 up. */
const FIRST_BASE = 0xfeb0_0000n
const SIZE = 0x200n
const FIRST_LINE = 5
const TRANSPORTS = 8

/** The transports of the machine's own `count` devices. */
export function ownTransports(count: number): Window[] {
  return Array.from({ length: count }, (_, at) => transportWindow(TRANSPORTS - 1 - at))
}

/** How many drives a microvm can be given while it runs. */
const SPARE_SLOTS = 3

/** The window of one of a microvm's transports. */
function transportWindow(transport: number): Window {
  return { base: FIRST_BASE + BigInt(transport) * SIZE, size: SIZE, irq: FIRST_LINE + transport }
}

/**
 * Empty virtio-mmio block devices, which are there from boot on and of which the guest is not told: QEMU cannot plug in virtio-mmio
 * devices. A drive is put into one of them, and then its window is announced.
 */
export class Slots {
  /** The first transports. QEMU gives the others to the machine's own devices, from the last one down. */
  readonly windows: readonly Window[] = Array.from({ length: SPARE_SLOTS }, (_, at) => transportWindow(at))

  /** The arguments of QEMU that make them. */
  readonly args: readonly string[] = this.windows.flatMap((_, at) => [
    ...['-blockdev', JSON.stringify({ driver: 'null-co', 'node-name': emptyNode(at), 'read-zeroes': true, size: 0 })],
    ...['-device', JSON.stringify(slotDevice(at))],
  ])

  /** Those of `windows` that are slots. */
  visible(windows: readonly Window[]): Window[] {
    return windows.flatMap(({ base }) => this.windows.filter((slot) => slot.base === base))
  }

  /** @throws VmError `INVALID` if it cannot be put there. */
  async insert(qmp: QmpClient, drive: Drive): Promise<void> {
    const { id, pathOnHost, isReadOnly } = drive
    if (isReadOnly)
      throw new VmError({
        ...{ code: 'INVALID', subject: id, what: 'the slots of a microvm, which are made at boot, take writable drives only' },
        next: 'Make the drive writable.',
      })
    try {
      await addBlockNode(qmp, blockNode(id, drive), pathOnHost)
    } catch (error) {
      // QEMU may have opened the file all the same.
      if (mayBeDone(error)) await removeBlockNode(qmp, blockName(id))
      throw error
    }
    try {
      await this.#put(qmp, drive.window, blockName(id))
    } catch (error) {
      await this.eject(qmp, drive).catch(() => {})
      throw error
    }
  }

  /** Rejects if the slot may not be empty. The file is closed in any case in which QEMU can. */
  async eject(qmp: QmpClient, { id, window }: Drive): Promise<void> {
    try {
      await this.#put(qmp, window, emptyNode(this.#at(window)))
    } finally {
      await removeBlockNode(qmp, blockName(id))
    }
  }

  async #put(qmp: QmpClient, window: Window, node: string): Promise<void> {
    const path = `/machine/peripheral/${slotId(this.#at(window))}`
    await qmp.execute('qom-set', { path, property: 'drive', value: node })
  }

  #at({ base }: Window): number {
    return this.windows.findIndex((window) => window.base === base)
  }
}

function slotDevice(at: number): Record<string, unknown> {
  return { driver: 'virtio-blk-device', id: slotId(at), drive: emptyNode(at), bus: `virtio-mmio-bus.${at}` }
}

function slotId(at: number): string {
  return `slot-${at}`
}

function emptyNode(at: number): string {
  return `empty-${at}`
}

// Finds the APIC id of an offline CPU: /proc/cpuinfo lists only CPUs that are online. An offline CPU has an ACPI object, and the firmware's
// tables lead from there to the APIC id. Layouts: ACPI 6.5, 5.2.12 (MADT) and 20.2.5.2 (DefProcessor).

/** Processor UID → APIC id, as the MADT lists them, including the CPUs that can be plugged in later. */
export function madtApicIds(table: Uint8Array): Map<number, number> {
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  const ids = new Map<number, number>()
  // An id of all ones marks an absent CPU: firmware pads its table with such entries, and Linux skips them.
  const add = (uid: number, id: number, noId: number) => {
    if (id !== noId) ids.set(uid, id)
  }
  for (let at = MADT_ENTRIES_AT; at + 2 <= view.byteLength; ) {
    const length = view.getUint8(at + 1)
    if (length < 2 || at + length > view.byteLength) break
    const type = view.getUint8(at)
    if (type === LOCAL_APIC && length >= 8) add(view.getUint8(at + 2), view.getUint8(at + 3), 0xff)
    if (type === LOCAL_X2APIC && length >= 16) add(view.getUint32(at + 12, true), view.getUint32(at + 4, true), 0xffff_ffff)
    at += length
  }
  return ids
}

const MADT_ENTRIES_AT = 44
const LOCAL_APIC = 0
const LOCAL_X2APIC = 9

/**
 * Name → UID of the processors that a DSDT or SSDT declares by the `Processor` keyword, whose UID sysfs does not show. They are found by
 * their opcode, since byte code cannot be walked without interpreting it. A name with two different UIDs is left out.
 */
export function processorUids(tables: readonly Uint8Array[]): Map<string, number> {
  const found = new Map<string, number | undefined>()
  for (const table of tables) {
    for (let at = TABLE_HEADER; at + 6 < table.length; at++) {
      if (table[at] !== EXT_OP || table[at + 1] !== PROCESSOR_OP) continue
      // The package's length takes one byte, and as many more as its two top bits say.
      const nameAt = at + 3 + (table[at + 2]! >> 6)
      const name = String.fromCharCode(...table.subarray(nameAt, nameAt + 4))
      const uid = table[nameAt + 4]
      if (uid === undefined || !/^[A-Z_][A-Z0-9_]{3}$/.test(name)) continue
      found.set(name, found.has(name) && found.get(name) !== uid ? undefined : uid)
    }
  }
  return new Map([...found].filter((entry): entry is [string, number] => entry[1] !== undefined))
}

const TABLE_HEADER = 36
const EXT_OP = 0x5b
const PROCESSOR_OP = 0x83

/** Who sent a message, as far as the transport tells: hybrid vsock names neither, and there the path is one guest's. */
export interface NotifySender {
  readonly cid?: number | undefined
  readonly port?: number | undefined
}

/** What one call of sd_notify(3) sent. */
export interface NotifyMessage {
  /** Name → value; of a name that stands twice, the last value. Without a prototype. */
  readonly fields: Readonly<Record<string, string>>
  readonly from: NotifySender
}

const LINE_END = /[\n\r]/
const NUL = 0

const decoder = new TextDecoder()

/**
 * Reads lines of the form `NAME=value`. Other lines, and what is not UTF-8, are passed over as systemd's own receivers do. Undefined for a
 * message without one assignment, and for one with a NUL before its last byte, which systemd refuses, too.
 */
export function parseNotify(bytes: Uint8Array, from: NotifySender = {}): NotifyMessage | undefined {
  const nul = bytes.indexOf(NUL)
  if (nul >= 0 && nul < bytes.length - 1) return undefined
  const fields: Record<string, string> = Object.create(null)
  let found = false
  for (const line of decoder.decode(nul < 0 ? bytes : bytes.subarray(0, nul)).split(LINE_END)) {
    const equals = line.indexOf('=')
    if (equals <= 0) continue
    fields[line.slice(0, equals)] = line.slice(equals + 1)
    found = true
  }
  return found ? { fields, from } : undefined
}

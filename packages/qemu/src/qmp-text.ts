// The text of a refusal is all that QMP says about most of them. It is read here and nowhere else.

/**
 * What a refusal is about: another device or process holds a `lock` on the file, the `duplicate-id` is in use, or the device is being
 * unplugged already (`unplug-in-progress`).
 */
export type QmpReason = 'lock' | 'duplicate-id' | 'unplug-in-progress'

/** As QEMU 7.2 puts it. */
const PATTERNS: readonly (readonly [pattern: RegExp, reason: QmpReason])[] = [
  [/\block\b/, 'lock'],
  [/Duplicate (device )?ID/i, 'duplicate-id'],
  [/in the process of unplug/, 'unplug-in-progress'],
]

/** What QEMU's description of an error says; undefined for a text that is not known here. */
export function reasonOf(description: string): QmpReason | undefined {
  return PATTERNS.find(([pattern]) => pattern.test(description))?.[1]
}

// What QEMU prints when it does not have what its command line names: it is of another version, or was built without some devices. The text is
// all there is. It is read here and nowhere else.

/** What this QEMU lacks, and what the reader can do about it. */
export interface Unsupported {
  readonly what: string
  readonly next: string
}

const COMPLAINTS: readonly (readonly [pattern: RegExp, lacks: (name: string) => string, list?: string])[] = [
  [/'([^']+)' is not a valid device model name/, (name) => `device ${name}`, '-device help'],
  [/unsupported machine type/, () => 'machine of that type', '-machine help'],
  [/invalid accelerator (\S+)/, (name) => `accelerator ${name}`, '-accel help'],
  [/unable to find CPU model '([^']+)'/, (name) => `CPU model ${name}`, '-cpu help'],
  [/Property '([^']+)' not found/, (name) => `property ${name}`],
  [/: (-[\w-]+): invalid option$/m, (name) => `option ${name}`],
  [/Parameter 'qom-type' does not accept value '([^']+)'/, (name) => `object ${name}`, '-object help'],
  [/'([^']+)' is not a valid char driver name/, (name) => `chardev ${name}`, '-chardev help'],
]

/** What of its command line this QEMU does not know; undefined if it ended for another reason. */
export function unsupported(output: string): Unsupported | undefined {
  if (/Could not access KVM kernel module|failed to initialize kvm/i.test(output))
    return {
      what: 'KVM cannot be used here',
      next: "Check that there is a /dev/kvm and that this user may open it, or use accel: 'tcg', which needs neither.",
    }
  for (const [pattern, lacks, list] of COMPLAINTS) {
    const [seen, name = ''] = pattern.exec(output) ?? []
    if (seen === undefined) continue
    const lists = list === undefined ? '' : `"${list}" lists what it has. `
    return { what: `this QEMU has no ${lacks(name)}`, next: `${lists}It is of another version, or was built without.` }
  }
  return undefined
}

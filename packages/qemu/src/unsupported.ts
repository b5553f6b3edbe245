// What QEMU says when it does not have what its command line names: another version, or a build without some devices.

const COMPLAINTS: readonly (readonly [pattern: RegExp, what: (name: string) => string])[] = [
  [/'([^']+)' is not a valid device model name/, (name) => `no device ${name}; "-device help" lists what it has`],
  [/unsupported machine type/, () => 'no machine of that type; "-machine help" lists what it has'],
  [/invalid accelerator (\S+)/, (name) => `no accelerator ${name}; "-accel help" lists what it has`],
  [/unable to find CPU model '([^']+)'/, (name) => `no CPU model ${name}; "-cpu help" lists what it has`],
  [/Property '([^']+)' not found/, (name) => `no property ${name}`],
  [/: (-[\w-]+): invalid option$/m, (name) => `no option ${name}`],
  [/Parameter 'qom-type' does not accept value '([^']+)'/, (name) => `no object ${name}; "-object help" lists what it has`],
  [/'([^']+)' is not a valid char driver name/, (name) => `no chardev ${name}; "-chardev help" lists what it has`],
]

/** What of its command line this QEMU does not know, in words; undefined if it ended for another reason. */
export function unsupported(output: string): string | undefined {
  if (/Could not access KVM kernel module|failed to initialize kvm/i.test(output))
    return "KVM cannot be used here: is there a /dev/kvm, and may this user open it? accel: 'tcg' needs neither"
  for (const [pattern, what] of COMPLAINTS) {
    const [seen, name = ''] = pattern.exec(output) ?? []
    if (seen !== undefined) return `this QEMU has ${what(name)}. It is of another version, or was built without`
  }
  return undefined
}

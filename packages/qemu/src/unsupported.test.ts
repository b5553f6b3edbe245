import { expect, it } from 'vitest'
import { unsupported } from './unsupported.js'

// As QEMU 7.2 says it; the lines about KVM are those of a host without it.
it.each([
  [
    "-device vhost-user-vsock-pci,id=v: 'vhost-user-vsock-pci' is not a valid device model name",
    'no device vhost-user-vsock-pci',
  ],
  ['unsupported machine type\nUse -machine help to list supported machines', 'no machine of that type'],
  ['-accel hax: invalid accelerator hax', 'no accelerator hax'],
  ['-accel hvf: invalid accelerator hvf', 'no accelerator hvf'],
  ['Could not access KVM kernel module: Permission denied', 'KVM cannot be used'],
  ['Could not access KVM kernel module: No such file or directory\nqemu: failed to initialize kvm', 'KVM cannot be used'],
  ["unable to find CPU model 'nosuch'", 'no CPU model nosuch'],
  ["Property 'max-x86_64-cpu.fsrm' not found", 'no property max-x86_64-cpu.fsrm'],
  ['-nosuch: invalid option', 'no option -nosuch'],
  ["-object nosuch,id=x: Parameter 'qom-type' does not accept value 'nosuch'", 'no object nosuch'],
  ["-chardev nosuch,id=x: 'nosuch' is not a valid char driver name", 'no chardev nosuch'],
])('%s', (line, what) => {
  expect(unsupported(`qemu-system-x86_64: ${line}`)).toMatchObject({
    what: expect.stringContaining(what),
    next: expect.stringMatching(/^("-\w+ help" lists what it has. )?(It is of another version|Check that)/),
  })
})

it('is not said of a QEMU that ended for another reason', () => {
  expect(
    unsupported("qemu-system-x86_64: -drive file=/no,if=none: Could not open '/no': No such file or directory"),
  ).toBeUndefined()
  expect(unsupported('')).toBeUndefined()
})

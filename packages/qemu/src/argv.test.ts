import { describe, expect, it } from 'vitest'
import { type MachineOptions, qemuArgv } from './argv.js'

const FDS = { console: 3, qmp: 4, ports: [5, 6] }
const argv = (options: Partial<MachineOptions> = {}) => qemuArgv({ kernel: '/k', ...options }, FDS)
/** All values of one flag. */
const of = (args: string[], flag: string) => args.filter((_, i) => args[i - 1] === flag)

/** What programs without types may give. */
const wrong = (options: [object, RegExp][]) => options as [Partial<MachineOptions>, RegExp][]

describe('qemuArgv', () => {
  it('emulates a q35 without anything that was not asked for', () => {
    expect(argv()).toEqual([
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-accel', 'tcg', '-cpu', 'max,-erms,-fsrm'],
      ...['-machine', 'q35,vmport=off,hpet=off', '-smp', 'cpus=1,maxcpus=2', '-m', 'size=256M'],
      ...['-kernel', '/k', '-append', 'console=ttyS0 panic=-1 no_timer_check'],
      ...['-chardev', 'socket,id=console,fd=3', '-serial', 'chardev:console'],
      ...['-chardev', 'socket,id=qmp,fd=4', '-mon', 'chardev=qmp,mode=control'],
    ])
  })

  it('emulates with memory barriers, which QEMU 7.2 leaves out where one vCPU is all there can be', () => {
    expect(of(argv({ maxCpus: 1 }), '-smp')).toEqual(['cpus=1,maxcpus=1'])
    expect(of(argv({ accel: 'kvm' }), '-smp')).toEqual(['cpus=1,maxcpus=1'])
    expect(of(argv({ cpus: 3 }), '-smp')).toEqual(['cpus=3,maxcpus=3'])
  })

  it('uses KVM only when told to', () => {
    expect(of(argv({ accel: 'kvm' }), '-accel')).toEqual(['kvm'])
    expect(of(argv({ accel: 'kvm' }), '-cpu')).toEqual(['host'])
    expect(of(argv({ cpu: 'qemu64' }), '-cpu')).toEqual(['qemu64'])
  })

  it('makes room for hotplug, and shares memory with vhost-user', () => {
    const args = argv({ cpus: 2, maxCpus: 4, memory: '1G', maxMemory: { slots: 3, size: '2G' }, sharedMemory: true })
    expect(of(args, '-smp')).toEqual(['cpus=2,maxcpus=4'])
    expect(of(args, '-m')).toEqual(['size=1G,slots=3,maxmem=2G'])
    expect(of(args, '-machine')).toEqual(['q35,vmport=off,hpet=off,memory-backend=mem0'])
    expect(of(args, '-object')).toEqual(['memory-backend-memfd,id=mem0,size=1G,share=on'])
  })

  it('puts virtio devices on PCI, and on virtio-mmio under microvm', () => {
    const options = { drives: [{ id: 'root', path: '/a,b "c"', readOnly: true }], ports: ['org.a', 'org.b'] }
    const pc = argv({ ...options, machine: 'pc' })
    expect(of(pc, '-device')).toEqual([
      'virtio-serial-pci,id=ports',
      'virtserialport,bus=ports.0,nr=1,chardev=port0,name=org.a',
      'virtserialport,bus=ports.0,nr=2,chardev=port1,name=org.b',
      'virtio-blk-pci,id=root,drive=drive-root,serial=root',
    ])
    expect(of(pc, '-chardev').slice(2)).toEqual(['socket,id=port0,fd=5', 'socket,id=port1,fd=6'])
    expect(JSON.parse(of(pc, '-blockdev')[0]!)).toEqual({
      ...{ driver: 'raw', 'node-name': 'drive-root', 'read-only': true },
      file: { driver: 'file', filename: '/a,b "c"' },
    })
    const microvm = argv({ ...options, machine: 'microvm', machineOptions: ['acpi=on'] })
    expect(of(microvm, '-machine')).toEqual(['microvm,acpi=on'])
    expect(of(microvm, '-device').filter((device) => device.startsWith('virtio-'))).toEqual([
      'virtio-serial-device,id=ports',
      'virtio-blk-device,id=root,drive=drive-root,serial=root',
    ])
  })

  it('emulates an aarch64 virt, with the console and the devices of one', () => {
    const options = { machine: 'virt' as const, drives: [{ id: 'root', path: '/a' }] }
    expect(argv(options)).toEqual([
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-accel', 'tcg', '-cpu', 'max,pauth-impdef=on'],
      ...['-machine', 'virt', '-smp', 'cpus=1,maxcpus=2', '-m', 'size=256M'],
      ...['-kernel', '/k', '-append', 'console=ttyAMA0 panic=-1'],
      ...['-chardev', 'socket,id=console,fd=3', '-serial', 'chardev:console'],
      ...['-chardev', 'socket,id=qmp,fd=4', '-mon', 'chardev=qmp,mode=control'],
      ...['-blockdev', expect.any(String), '-device', 'virtio-blk-pci,id=root,drive=drive-root,serial=root'],
    ])
    expect(of(argv({ ...options, accel: 'kvm' }), '-cpu')).toEqual(['host'])
    expect(of(argv({ ...options, sharedMemory: true }), '-machine')).toEqual(['virt,memory-backend=mem0'])
  })

  it('leaves a console named by the caller alone', () => {
    expect(of(argv({ append: 'quiet' }), '-append')).toEqual(['console=ttyS0 panic=-1 no_timer_check quiet'])
    expect(of(argv({ append: 'quiet console=hvc0' }), '-append')).toEqual(['quiet console=hvc0'])
  })

  it('passes on character devices, devices and arguments in order, arguments last', () => {
    const args = argv({ chardevs: ['socket,id=vs,path=/s'], devices: ['a,id=1', 'b'], args: ['-S'], reboot: true })
    expect(args.slice(-7)).toEqual(['-chardev', 'socket,id=vs,path=/s', '-device', 'a,id=1', '-device', 'b', '-S'])
    expect(args).not.toContain('-no-reboot')
  })

  it.each<[Partial<MachineOptions>, RegExp]>([
    [{ kernel: '' }, /^kernel: must be .*, got ""/],
    [{ machine: 'isapc' as 'pc' }, /^machine: must be one of pc, q35, microvm, virt, got "isapc"/],
    [{ accel: 'hvf' as 'kvm' }, /^accel: must be one of tcg, kvm, got "hvf"/],
    [{ memory: '512' }, /^memory: must be a number with K, M, G or T, such as 512M, got "512"/],
    [{ maxMemory: { slots: 0, size: '1G' } }, /^maxMemory.slots: must be .*, got 0/],
    [{ cpus: 0 }, /^cpus: must be .*, got 0/],
    [{ cpus: 4, maxCpus: 2 }, /^maxCpus: must be an integer of at least 4, got 2/],
    [{ ports: ['a', 'a'] }, /^ports: must be different each time, got "a"/],
    [{ ports: ['a,b'] }, /^ports: must be .*, got "a,b"/],
    [{ drives: [{ id: 'a,b', path: '/' }] }, /^drives\[\].id: must be .*, got "a,b"/],
    [{ drives: [{ id: 'a'.repeat(21), path: '/' }] }, /^drives\[\].id: must be at most 20 bytes, got "a/],
    [{ drives: [1, 2].map(() => ({ id: 'a', path: '/' })) }, /^drives\[\].id: must be different each time, got "a"/],
    ...wrong([
      [{ machine: 5n }, /^machine: must be .*, got 5n/],
      [{ cpus: 2n }, /^cpus: must be an integer of at least 1, got 2n/],
      [{ cpus: Symbol('two') }, /^cpus: must be .*, got Symbol\(two\)/],
      [{ cpu: 5 }, /^cpu: must be a string, got 5/],
      [{ initrd: null }, /^initrd: must be a string, got null/],
      [{ append: ['quiet'] }, /^append: must be a string, got an array of 1/],
      [{ maxMemory: '1G' }, /^maxMemory: must be an object with slots and size, got "1G"/],
      [{ maxMemory: null }, /^maxMemory: must be .*, got null/],
      [{ sharedMemory: 'no' }, /^sharedMemory: must be true or false, got "no"/],
      [{ reboot: 0 }, /^reboot: must be true or false, got 0/],
      [{ machineOptions: 'acpi=on' }, /^machineOptions: must be an array of strings, got "acpi=on"/],
      [{ devices: [{ driver: 'x' }] }, /^devices: must be an array of strings, got an array of 1/],
      [{ chardevs: 'socket,id=a' }, /^chardevs: must be .*, got /],
      [{ args: '-S' }, /^args: must be .*, got "-S"/],
      [{ ports: 'org.a' }, /^ports: must be an array of strings, got "org.a"/],
      [{ ports: [undefined] }, /^ports: must be an array of strings, got an array of 1/],
      [{ drives: 'a' }, /^drives: must be an array of drives, got "a"/],
      [{ drives: [null] }, /^drives\[\]: must be an object with id and path, got null/],
      [{ drives: [{ path: '/' }] }, /^drives\[\].id: must be .*, got undefined/],
      [{ drives: [{ id: 'a' }] }, /^drives\[\].path: must be the path of a file, got undefined/],
      [{ drives: [{ id: 'a', path: '' }] }, /^drives\[\].path: must be .*, got ""/],
      [{ drives: [{ id: 'a', path: '/', format: 'vmdk' }] }, /^drives\[\].format: must be one of raw, qcow2, got "vmdk"/],
      [{ drives: [{ id: 'a', path: '/', readOnly: 'yes' }] }, /^drives\[\].readOnly: must be true or false, got "yes"/],
    ]),
  ])('refuses %o', (options, message) => {
    expect(() => argv(options)).toThrow(message)
  })

  it.each([undefined, null, 5])('refuses %o instead of options', (options) => {
    expect(() => qemuArgv(options as never, FDS)).toThrow(/^options: must be an object, got /)
  })
})

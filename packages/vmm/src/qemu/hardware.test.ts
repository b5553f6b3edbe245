import { qemuArgv } from '@upcall/qemu'
import { describe, expect, it } from 'vitest'
import { blockName, type Hardware, machineOptions } from './hardware.js'
import { Slots } from './slots.js'

const MIB = 2 ** 20
const hardware: Hardware = {
  ...{ machine: 'q35', accel: 'tcg', cpus: [0], maxCpus: 4, vsockSocket: '/tmp/v.sock', pci: [] },
  memory: { boot: 512 * MIB, max: 1024 * MIB, plugged: 0 },
}

function argv(changes: Partial<Hardware> = {}): string {
  const options = { kernel: 'vmlinuz', ...machineOptions({ ...hardware, ...changes }) }
  return qemuArgv(options, { console: 3, qmp: 4, ports: [] }).join(' ')
}

describe('machineOptions', () => {
  it('share memory, and have the vsock device', () => {
    expect(argv()).toMatch(/memory-backend-memfd,id=mem0,size=512M,share=on/)
    expect(argv()).toContain('socket,id=vsock,path=/tmp/v.sock')
    expect(argv()).toContain('"driver":"vhost-user-vsock-pci"')
    expect(argv({ machine: 'microvm' })).toContain('"driver":"vhost-user-vsock-device"')
  })

  it('take paths with commas', () => {
    const paths = argv({ vsockSocket: '/tmp/a,b/v.sock', monitor: '/tmp/m,server=off.sock' })
    expect(paths).toContain('socket,id=vsock,path=/tmp/a,,b/v.sock')
    expect(paths).toContain('unix:/tmp/m,,server=off.sock,server=on,wait=off')
  })

  it('are software emulation unless told otherwise', () => {
    expect(argv()).toContain('-accel tcg')
    expect(argv({ accel: 'kvm' })).toContain('-accel kvm')
  })

  it('have a place for each vCPU, by APIC id', () => {
    expect(argv()).toContain('-smp cpus=1,maxcpus=4,sockets=1,cores=4,threads=1')
    // Emulated with a single vCPU for ever, a guest would have no memory barriers.
    expect(argv({ maxCpus: 1 })).toContain('-smp cpus=1,maxcpus=2,sockets=1,cores=2,threads=1')
    expect(argv({ maxCpus: 1, accel: 'kvm' })).toContain('-smp cpus=1,maxcpus=1,sockets=1,cores=1,threads=1')
    // A gap: those above it are devices of their own.
    const gap = argv({ cpus: [0, 1, 3] })
    expect(gap).toContain('-smp cpus=2,maxcpus=4')
    expect(gap).toContain('"driver":"max-x86_64-cpu","id":"cpu-3","socket-id":0,"core-id":3')
  })

  it('have room for memory, but not on a microvm', () => {
    expect(argv({ memory: { boot: 512 * MIB, max: 1024 * MIB, plugged: 64 * MIB } })).toMatch(
      /-m size=512M,slots=1,maxmem=1024M .*"driver":"virtio-mem-pci".*"requested-size":67108864/,
    )
    expect(argv({ machine: 'microvm' })).not.toMatch(/maxmem|virtio-mem/)
  })

  it('have ports on a q35, and PCI devices that were there before', () => {
    const disk = { pathOnHost: '/srv/data.qcow2', isReadOnly: false }
    const pci = [{ id: 'data', place: { bus: 2, devfn: 0 }, disk, status: 'present' as const }]
    const text = argv({ pci })
    expect(text.match(/"driver":"pcie-root-port"/g)).toHaveLength(8)
    expect(text).toMatch(/"driver":"virtio-blk-pci","id":"pci-data".*"bus":"port-2"/)
    expect(text).toContain('"driver":"qcow2"')
    const bare = [{ id: 'net1', place: { bus: 0, devfn: 5 << 3 }, status: 'present' as const }]
    expect(argv({ machine: 'pc', pci: bare })).toContain('"driver":"virtio-rng-pci","id":"pci-net1","bus":"pci.0","addr":"0x5.0"')
  })

  it('hide the slots of a microvm', () => {
    const text = argv({ machine: 'microvm', args: new Slots().args })
    expect(text).toContain('microvm,memory-backend=mem0,acpi=off,auto-kernel-cmdline=off')
    expect(text.match(/"driver":"virtio-blk-device"/g)).toHaveLength(3)
    expect(text).toContain('"bus":"virtio-mmio-bus.2"')
  })
})

it('block names are short and differ', () => {
  const long = 'x'.repeat(64)
  expect(blockName(long).length).toBeLessThanOrEqual(31)
  expect(blockName(long)).not.toBe(blockName(`${long.slice(1)}y`))
})

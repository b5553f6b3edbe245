// What must not compile. Nothing here runs: the type checker fails where a line that it is to refuse is accepted.
import { DeviceManager, deviceManagerProtocol } from '@upcall/device-manager'
import { type CpuRequest, encodeRequest, type Request } from '@upcall/wire'

declare const x86: DeviceManager<'x86_64'>
declare const arm: DeviceManager<'aarch64'>
const window = { base: 0xd0000000n, size: 0x1000n, irq: 5 }

export async function x86NamesCpusByApicId() {
  await x86.addCpus({ apicIds: [1, 2] })
  await x86.addCpus({ apicIds: [1], apicVersion: 0x14 }, { present: [0] })
  // @ts-expect-error x86_64 takes no count
  await x86.addCpus({ count: 1 })
  // @ts-expect-error nor for removal
  await x86.removeCpus({ count: 1 })
  // @ts-expect-error nor beside ids
  await x86.addCpus({ apicIds: [1], count: 1 })
  // @ts-expect-error present are ids
  await x86.removeCpus({ apicIds: [1] }, { present: 2 })
}

export async function armCountsCpus() {
  await arm.addCpus({ count: 1 })
  await arm.removeCpus({ count: 1 }, { present: 2 })
  // @ts-expect-error aarch64 takes no ids
  await arm.addCpus({ apicIds: [1] })
  // @ts-expect-error present is a count
  await arm.removeCpus({ count: 1 }, { present: [0, 1] })
}

export async function resize() {
  const steps = { max: 4, start: (_ids: number[]) => {}, stop: (_ids: number[]) => {} }
  const grown = await x86.resizeCpus(2, { ...steps, present: [0] })
  const ids: readonly number[] = grown.present
  const shrunk = await arm.resizeCpus(1, { ...steps, present: 2 })
  const count: number = shrunk.present
  // @ts-expect-error on x86_64 these are ids
  await x86.resizeCpus(2, { ...steps, present: 1 })
  // @ts-expect-error on aarch64 this is a count
  await arm.resizeCpus(2, { ...steps, present: [0] })
  // @ts-expect-error the caller of resize has vCPUs to stop
  await x86.resizeCpus(2, { present: [0], max: 4, start: steps.start })
  return [ids, count]
}

export async function addressesAreBigints() {
  await x86.addMmio(window)
  // @ts-expect-error a number is not exact beyond 2^53
  await x86.addMmio({ ...window, base: 0xd0000000 })
  // @ts-expect-error the irq is not optional
  await x86.removeMmio({ base: 0xd0000000n, size: 0x1000n })
  await x86.addPci('00:05.0')
  await x86.addPci({ bus: 0, devfn: 40 })
  // @ts-expect-error slot and function are one byte, devfn
  await x86.addPci({ bus: 0, slot: 5 })
}

export function theWireKnowsTheArchitectureToo() {
  encodeRequest({ type: 'ADD_CPU', apicIds: [1] }, 'x86_64')
  encodeRequest({ type: 'ADD_CPU', count: 1 }, 'aarch64')
  // @ts-expect-error x86_64 takes no count
  encodeRequest({ type: 'ADD_CPU', count: 1 }, 'x86_64')
  // @ts-expect-error aarch64 takes no ids
  encodeRequest({ type: 'DEL_CPU', apicIds: [1] }, 'aarch64')
  // @ts-expect-error there is no such architecture
  encodeRequest({ type: 'ADD_PCI', bus: 0, devfn: 40 }, 'riscv64')
  // @ts-expect-error memory has no codec; RAW is the way
  encodeRequest({ type: 'ADD_MEM', base: 0n, size: 1n }, 'x86_64')
  const x86Only: CpuRequest<'x86_64'> = { type: 'ADD_CPU', apicIds: [1] }
  // @ts-expect-error one architecture's requests are not the other's
  const notArm: Request<'aarch64'> = x86Only
  return notArm
}

export function theArchitectureIsNotOptional(dial: ConstructorParameters<typeof DeviceManager>[0]['dial']) {
  // @ts-expect-error the wire does not tell, so the caller has to
  new DeviceManager({ dial })
  // @ts-expect-error nor does the protocol know
  deviceManagerProtocol({})
}

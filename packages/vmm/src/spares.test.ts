import { expect, it } from 'vitest'
import { makeRig } from '../testing/rig.js'

it('an aarch64 guest that was reset has its spare vCPUs taken offline', async () => {
  await using rig = await makeRig({ arch: 'aarch64', cpus: 3 })
  const { vm, machine } = rig
  await vm.resize(1)
  for (const id of [1, 2]) machine.cpus.add(id)
  machine.spares = { cpus: [1, 2], pci: [] }
  await machine.reboot()
  expect((await vm.reconcile()).settled.map(({ id, now }) => `${id} ${now}`)).toEqual(['2 absent', '1 absent'])
  expect(machine.kernel.state.cpus.online).toEqual([0])
})

it('an aarch64 guest takes no other vCPU offline in place of a spare one', async () => {
  await using rig = await makeRig({ arch: 'aarch64', cpus: 2 })
  const { vm, machine } = rig
  for (const id of [2, 3]) machine.cpus.add(id)
  machine.spares = { cpus: [2], pci: [] }
  await machine.reboot()
  const differences = ['2', '3'].map((id) => ({ kind: 'cpu', id, only: 'guest' }))
  for (let times = 0; times < 2; times++) expect(await vm.reconcile()).toEqual({ restarted: false, settled: [], differences })
  expect(machine.kernel.state.cpus.online).toEqual([0, 1, 2, 3])
})

import { type ComplianceMachine, machineCompliance } from '@upcall/testkit/vmm'
import { describe, expect, it } from 'vitest'
import { fakeQemu, readmeMachine, rig } from './support/machines.js'

const machines = [rig('x86_64'), rig('aarch64'), fakeQemu('q35'), fakeQemu('pc'), fakeQemu('microvm'), readmeMachine()]

describe.each(machines.map((machine) => [machine.name, machine] as const))('%s', (_name, machine) => {
  for (const { name, run } of machineCompliance(machine, { timeoutMs: 30_000 })) {
    it(name, { timeout: 60_000 }, ({ signal }) => run(signal))
  }
})

describe('the suite', () => {
  const subject = readmeMachine()

  it('leaves out what a machine cannot do, and only that', () => {
    const names = (features: Partial<ComplianceMachine['features']>) =>
      machineCompliance({ ...subject, features: { ...subject.features, ...features } }).map(({ name }) => name)
    const all = names({ memory: 1 })
    expect(new Set(all).size).toBe(all.length)
    const none = names({ cpus: false, drives: false, pci: false, guest: false, kill: false })
    expect(none).toHaveLength(5)
    expect(names({ guest: false }).length).toBeLessThan(all.length)
  })

  it.each([
    ['whose spares stay spares', { spares: { cpus: [1], pci: [] } }, /started and stopped/],
    ['that unplugs only what is there', { detachDrive: () => Promise.reject(new Error('no such drive')) }, /never attached/],
    ['that gives one window to all', { chooseWindow: () => ({ base: 0n, size: 1n, irq: 5 }) }, /windows do not overlap/],
    ['that takes any amount of memory', { checkMemory: () => {} }, /it has the memory/],
    ['that starts a vCPU later', { startCpus: async () => {} }, /the guest brings online/],
    ['that never dies', { kill: () => {} }, /is gone/],
  ])('fails a machine %s', async (_, broken, which) => {
    const start = async () => {
      const running = await subject.start()
      for (const [name, value] of Object.entries(broken)) {
        Object.defineProperty(name === 'kill' ? running : running.machine, name, { value })
      }
      return running
    }
    const test = machineCompliance({ ...subject, start }, { timeoutMs: 1_000 }).find(({ name }) => which.test(name))!
    await expect(test.run()).rejects.toThrow()
  })
})

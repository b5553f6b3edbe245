import { duplexPair } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { MAX_OUTPUT } from '../agent/messages.js'
import { Agent } from './agent.js'

/** An agent whose guest answers every question so. */
function answering(answer: string): Agent {
  return new Agent(async () => {
    const [ours, theirs] = duplexPair()
    theirs.once('data', () => theirs.end(answer))
    return ours
  })
}

const report = {
  cpus: [0, 2],
  memory: 1024,
  pci: ['0000:00:05.0', '0001:00:05.0'],
  mmio: [{ base: '0xfeb00000', size: '0x200' }],
  blocks: [{ name: 'vda', serial: null, size: 512 }],
}

describe('report', () => {
  it('is what the guest says, of PCI domain 0', async () => {
    expect(await answering(JSON.stringify({ ok: report })).report()).toEqual({
      ...{ booted: true, paused: false, crashed: false },
      ...{ cpus: { online: [0, 2] }, memory: 1024, pci: [{ bus: 0, devfn: 5 << 3 }] },
      ...{ mmio: [{ base: 0xfeb0_0000n, size: 0x200n, irq: 0 }], blocks: report.blocks },
    })
  })

  it.each([
    [{}, /cpus/],
    [{ ...report, cpus: 'all' }, /cpus/],
    [{ ...report, cpus: ['1'] }, /cpus\.0/],
    [{ ...report, memory: -1 }, /memory/],
    [{ ...report, mmio: [{ base: '12', size: '0x200' }] }, /mmio\.0\.base/],
    [{ ...report, blocks: [{ name: 'vda' }] }, /blocks\.0/],
    [null, /it:/],
  ])('of another shape is refused: %j', async (value, what) => {
    await expect(answering(JSON.stringify({ ok: value })).report()).rejects.toThrow(what)
  })

  it.each(['', 'nonsense', '7', 'null', '{"error":"no"}'])('that cannot be read is refused: %j', async (answer) => {
    await expect(answering(answer).report()).rejects.toThrow()
  })
})

describe('execute', () => {
  it('takes all the output that the guest may give, however JSON writes it', async () => {
    // Each byte of it is six characters of JSON.
    const output = '\u0001'.repeat(MAX_OUTPUT)
    const executed = { status: 0, stdout: output, stderr: output }
    const { stdout, stderr } = await answering(JSON.stringify({ ok: executed })).execute(['cat'])
    expect([stdout.length, stderr.length]).toEqual([MAX_OUTPUT, MAX_OUTPUT])
  })

  it('takes no more than that', async () => {
    const answer = JSON.stringify({ ok: { status: 0, stdout: 'x'.repeat(14 * MAX_OUTPUT), stderr: '' } })
    await expect(answering(answer).execute(['cat'])).rejects.toThrow(/an answer of more than \d+ bytes/)
  })
})

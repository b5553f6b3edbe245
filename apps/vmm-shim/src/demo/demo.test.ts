import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SkippingClock } from '@upcall/foundation/testing/skipping-clock'
import { FAULTS } from '@upcall/vmm/simulated'
import { afterAll, describe, expect, inject, it, vi } from 'vitest'
import { temporaryDirectory } from '../../../../packages/vmm/testing/rig.js'
import { demo, type Overrides } from '../commands/demo.js'
import { STEPS } from './steps.js'

const guestEntry = new URL(inject('programs').guest)

async function play(overrides: Overrides = {}, record?: string, onShow = (_text: string) => {}) {
  const stdout: string[] = []
  const stderr: string[] = []
  const write = (text: string) => {
    onShow(text)
    stdout.push(text)
  }
  const status = await demo(
    { fast: true, ...(record !== undefined && { record }) },
    { stdout: { write }, stderr: { write: (text) => stderr.push(text) } },
    // The first step has to get something done while the guest boots.
    { guestEntry, bootMs: 4_000, patienceMs: 60_000, ...overrides },
  )
  return { status, stdout: stdout.join(''), stderr: stderr.join('') }
}

// A directory for temporary files of this file's own, in which all that is left behind is seen.
const temporary = temporaryDirectory()
vi.stubEnv('TMPDIR', temporary.path)
afterAll(() => {
  vi.unstubAllEnvs()
  const left = readdirSync(temporary.path)
  temporary[Symbol.dispose]()
  expect(left).toEqual([])
})

describe('the demo', () => {
  it('exits 0 when every step holds, with a table of them all', async () => {
    const { status, stdout, stderr } = await play()
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    const table = stdout.slice(stdout.indexOf('┌'))
    for (const { name } of STEPS) expect(table).toContain(name)
    expect(stdout).toContain('errno -17')
    expect(stdout).toContain('504 indeterminate')
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100)
    expect(stdout).not.toContain('\u001b')
  }, 120_000)

  it('records what was seen', async () => {
    using directory = temporaryDirectory()
    const file = join(directory.path, 'demo.svg')
    const { stdout } = await play({}, file)
    const svg = readFileSync(file, 'utf8')
    expect(svg.match(/<g class="l /g)).toHaveLength(stdout.trimEnd().split('\n').length)
    expect(svg).toContain('reconcile with a fresh guest')
  }, 120_000)
})

// What the step itself shows does not count as sabotage.
const SHOWN: Record<string, readonly string[]> = { 'the guest dies in the middle of a request': ['silence', 'death'] }

describe.concurrent('a sabotaged guest', () => {
  for (const { name } of STEPS) {
    for (const fault of FAULTS.filter((fault) => !SHOWN[name]?.includes(fault))) {
      it(`${fault} at "${name}" makes the demo exit 1 and name the step`, async () => {
        // Each step before has as much time as a busy machine needs. In the step that has to fail, it is over five times as fast.
        const clock = new SkippingClock()
        let hurrying: NodeJS.Timeout | undefined
        const onShow = (text: string) => {
          if (text.includes(name)) hurrying ??= setInterval(() => clock.skip(4_000), 1_000)
        }
        const sabotage = { step: name, fault }
        const { status, stderr, stdout } = await play(
          { sabotage, patienceMs: 20_000, silenceMs: 5_000, clock },
          undefined,
          onShow,
        )
        clearInterval(hurrying)
        expect(stderr).toContain(`step "${name}" failed: `)
        expect(status).toBe(1)
        expect(stdout).not.toContain('✔')
      }, 120_000)
    }
  }
})

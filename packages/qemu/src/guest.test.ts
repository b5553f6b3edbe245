import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from './fixtures/manual-clock.js'
import { type BootOptions, type BootRestart, bootGuest } from './guest.js'

const FAKE_QEMU = fileURLToPath(new URL('./fixtures/fake-qemu.mjs', import.meta.url))
const READY = 'Run /init as init process\r\n'

interface FakeGuest {
  prints?: string[]
  exits?: number
  stderr?: string
  ignoresSigterm?: boolean
}

let dir: string
let clock: ManualClock
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'guest-'))
  clock = new ManualClock()
})
afterEach(async () => {
  for (const pid of await pids()) expect(() => process.kill(pid, 0), 'a QEMU was left behind').toThrow('ESRCH')
  expect(clock.pending).toBe(0)
  expect(process.listenerCount('exit')).toBe(exitListeners)
  await rm(dir, { recursive: true })
})
const exitListeners = process.listenerCount('exit')

/** Boots the fake QEMU: one guest for each start, the last one for all further starts. */
async function boot(guests: FakeGuest[], options: Partial<BootOptions> = {}) {
  const kernel = join(dir, 'kernel')
  await writeFile(kernel, JSON.stringify({ guests }))
  return bootGuest({ qemu: FAKE_QEMU, kernel, clock, ...options })
}

async function pids(): Promise<number[]> {
  const text = await readFile(join(dir, 'kernel.pids'), 'utf8').catch(() => '')
  return text.split('\n').filter(Boolean).map(Number)
}

describe('bootGuest', () => {
  it('resolves at the ready line, with console, QMP and ports', async () => {
    const log: string[] = []
    const guest = await boot([{ prints: ['hello\r\n', READY] }], { ports: ['org.test'], log: (text) => log.push(text) })
    expect(guest.boot.restarts).toEqual([])
    expect(await pids()).toEqual([guest.pid])
    expect(await guest.qmp.execute('query-status')).toEqual({})
    const port = guest.port('org.test')
    port.write('ping')
    expect(String(await new Promise((resolve) => port.once('data', resolve)))).toBe('echo ping')
    expect(() => guest.port('other')).toThrow(/no port "other"; ports: org.test/)
    guest.type('ls\n')
    await guest.waitFor('typed: ls', { deadlineMs: 1000 })
    await guest.close()
    expect(log.join('')).toBe(`hello\r\n${READY}typed: ls\n`)
    await expect(guest.waitFor('never', { deadlineMs: 1000 })).rejects.toMatchObject({ code: 'CLOSED' })
    await expect(guest.qmp.execute('x')).rejects.toMatchObject({ code: 'QMP_CLOSED' })
  })

  it('takes another ready line, or none', async () => {
    const prompt = await boot([{ prints: ['login: '] }], { ready: /login: $/ })
    await prompt.close()
    await rm(join(dir, 'kernel.pids'))
    const silent = await boot([{}], { ready: false })
    expect(silent.console.text).toBe('')
    await silent.close()
  })

  it('writes the console to a file', async () => {
    const log = join(dir, 'console.log')
    const guest = await boot([{ prints: ['hello\r\n', READY, 'grüße\r\n'], exits: 0 }], { log })
    expect(await guest.exited).toMatchObject({ code: 0, signal: null })
    expect(await readFile(log, 'utf8')).toBe(`hello\r\n${READY}grüße\r\n`)
  })

  it('starts a silent boot again, and reports it', async () => {
    const restarts: BootRestart[] = []
    const armed = clock.armed(10_000)
    const booting = boot([{ prints: [] }, { prints: [READY] }], { onRestart: (restart) => restarts.push(restart) })
    await armed
    clock.advance(10_000)
    const guest = await booting
    expect(guest.boot.restarts).toEqual([{ attempt: 1, afterMs: 10_000, lastLines: [] }])
    expect(restarts).toEqual(guest.boot.restarts)
    await guest.close()
  })

  it('gives up after two restarts', async () => {
    const booting = boot([{}], { silentMs: 700 })
    const outcome = expect(booting).rejects.toMatchObject({
      code: 'BOOT_SILENT',
      summary: 'boot: the console went silent in each of 3 attempts, given up after 700 ms, 700 ms, 700 ms',
    })
    for (let attempt = 1; attempt <= 3; attempt++) {
      await clock.armed(700)
      clock.advance(700)
    }
    await outcome
  })

  it('counts silence from the last output', async () => {
    const chunks: string[] = []
    const rearmed = new Promise<void>((resolve) => {
      clock.armed(700).then(() => clock.armed(700).then(resolve))
    })
    const booting = boot([{ prints: ['Decompressing Linux...\r\n'] }], {
      silentMs: 700,
      maxRestarts: 0,
      log: (text) => chunks.push(text),
    })
    const outcome = expect(booting).rejects.toMatchObject({ code: 'BOOT_SILENT', console: ['Decompressing Linux...'] })
    await rearmed
    clock.advance(700)
    await outcome
  })

  it('bounds the boot as a whole', async () => {
    const armed = clock.armed(5000)
    const booting = boot([{ prints: ['still at it\r\n'] }], {
      bootDeadlineMs: 5000,
      silentMs: 60_000,
      log: () => clock.advance(5000),
    })
    const outcome = expect(booting).rejects.toMatchObject({ code: 'DEADLINE', console: ['still at it'] })
    await armed
    await outcome
  })

  it("tells QEMU's own complaint when it exits at once, whatever it waits for", async () => {
    const stderr = "qemu-system-x86_64: unsupported machine type 'x'\n"
    const expected = {
      code: 'EXITED',
      message: expect.stringMatching(/exited with status 1: qemu-system-x86_64: unsupported machine/),
    }
    await expect(boot([{ stderr }])).rejects.toMatchObject(expected)
    await expect(boot([{ stderr }], { ready: false })).rejects.toMatchObject(expected)
  })

  it('shows the last console lines when the guest dies while booting', async () => {
    const booting = boot([{ prints: ['Kernel panic - not syncing: no init found\r\n'], exits: 0 }])
    await expect(booting).rejects.toMatchObject({ code: 'EXITED', console: ['Kernel panic - not syncing: no init found'] })
  })

  it('tells a wait how QEMU was killed', async () => {
    const guest = await boot([{ prints: [READY] }])
    const wait = guest.waitFor('never', { deadlineMs: 1000 })
    guest.kill()
    await expect(wait).rejects.toMatchObject({ code: 'EXITED', summary: expect.stringContaining('QEMU was killed by SIGKILL') })
    expect(await guest.exited).toMatchObject({ code: null, signal: 'SIGKILL' })
  })

  it('kills a QEMU that does not go when asked, and closes once', async () => {
    const guest = await boot([{ prints: [READY], ignoresSigterm: true }])
    const closing = guest.close()
    expect(guest.close()).toBe(closing)
    clock.advance(2000)
    await closing
    expect(await guest.exited).toMatchObject({ signal: 'SIGKILL' })
    await guest[Symbol.asyncDispose]()
  })

  it('ends on abort: before, while booting, later', async () => {
    const reason = new Error('enough')
    await expect(boot([{}], { signal: AbortSignal.abort(reason) })).rejects.toMatchObject({ code: 'ABORTED', cause: reason })
    expect(await pids()).toEqual([])
    const booting = new AbortController()
    const log = () => booting.abort(reason)
    await expect(boot([{ prints: ['x'] }], { signal: booting.signal, log })).rejects.toMatchObject({
      code: 'ABORTED',
      cause: reason,
    })
    const later = new AbortController()
    const guest = await boot([{ prints: [READY] }], { signal: later.signal })
    const wait = guest.waitFor('never', { deadlineMs: 1000 })
    later.abort(reason)
    await expect(wait).rejects.toMatchObject({ code: 'ABORTED', cause: reason })
    expect(await guest.exited).toMatchObject({ signal: 'SIGKILL' })
  })

  it('says what to install when QEMU is missing', async () => {
    const expected = {
      code: 'TOOL_MISSING',
      message: expect.stringMatching(/no-such-qemu is not installed.*apt-get install qemu-system-x86/),
    }
    await expect(boot([{}], { qemu: 'no-such-qemu' })).rejects.toMatchObject(expected)
    await expect(boot([{}], { qemu: join(dir, 'no-such-qemu') })).rejects.toMatchObject({ code: 'TOOL_MISSING' })
  })

  it('refuses bad options before anything starts', async () => {
    await expect(boot([{}], { cpus: 0 })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    expect(await pids()).toEqual([])
  })
})

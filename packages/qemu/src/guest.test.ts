import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { catchUncaught } from '@upcall/foundation/testing/uncaught'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { BootRestart } from './boot-error.js'
import { type BootOptions, bootGuest } from './guest.js'

const FAKE_QEMU = fileURLToPath(new URL('../testing/fake-qemu.mjs', import.meta.url))
const READY = 'Run /init as init process\r\n'

interface FakeGuest {
  prints?: string[]
  /** Printed once the greeting is over. */
  printsLater?: string[]
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

/** A console sink that lets so much time pass once the guest has printed that. */
function silenceAfter(text: string, ms: number): (printed: string) => void {
  return (printed) => {
    if (printed.includes(text)) queueMicrotask(() => clock.advance(ms))
  }
}

async function pids(): Promise<number[]> {
  const text = await readFile(join(dir, 'kernel.pids'), 'utf8').catch(() => '')
  return text.split('\n').filter(Boolean).map(Number)
}

describe('bootGuest', () => {
  it.each<[object, string]>([
    [{ signal: {} }, 'signal: must be an AbortSignal, got an object'],
    [{ signal: null }, 'signal: must be an AbortSignal, got null'],
    [{ clock: {} }, 'clock.now: must be a function, got undefined'],
    [{ log: 5 }, 'log: must be the path of a file, or a function, got 5'],
    [{ log: '' }, 'log: must be the path of a file, or a function, got ""'],
    [{ ready: 5 }, 'ready: must be a string, a RegExp or false, got 5'],
    [{ ready: true }, 'ready: must be a string, a RegExp or false, got true'],
    [{ onRestart: {} }, 'onRestart: must be a function, got an object'],
    [{ qemu: 5 }, 'qemu: must be a name or a path, got 5'],
    [{ qemu: '' }, 'qemu: must be a name or a path, got ""'],
    [{ ports: 'a' }, 'ports: must be an array of strings, got "a"'],
    [{ maxRestarts: Number.POSITIVE_INFINITY }, 'maxRestarts: must be an integer of at least 0, got Infinity'],
    [{ bootTimeoutMs: '5' }, 'bootTimeoutMs: must be a number of milliseconds above 0, got "5"'],
  ])('refuses %o before it starts QEMU', async (wrong, message) => {
    await expect(boot([{ prints: [READY] }], wrong)).rejects.toThrow(message)
    expect(await pids()).toEqual([])
  })

  it.each([undefined, null, 'q35'])('refuses %o instead of options', async (options) => {
    await expect(bootGuest(options as never)).rejects.toThrow(/^options: must be an object, got /)
  })

  it('does not take a folder for a program', async () => {
    await expect(boot([], { qemu: dir })).rejects.toMatchObject({ code: 'TOOL_MISSING' })
  })

  it('says what a QEMU of another version, or of another build, does not have', async () => {
    const stderr = "qemu-system-x86_64: -device vhost-user-vsock-pci: 'vhost-user-vsock-pci' is not a valid device model name\n"
    await expect(boot([{ stderr }])).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringMatching(
        /^boot: this QEMU has no device vhost-user-vsock-pci \(QEMU exited with status 1: qemu-system/,
      ),
    })
  })

  it.each<[Partial<BootOptions>, string]>([
    [{ bootTimeoutMs: Number.NaN }, 'bootTimeoutMs'],
    [{ bootTimeoutMs: -1 }, 'bootTimeoutMs'],
    [{ silenceTimeoutMs: Number.NaN }, 'silenceTimeoutMs'],
    [{ silenceTimeoutMs: 0 }, 'silenceTimeoutMs'],
    [{ maxRestarts: -1 }, 'maxRestarts'],
    [{ maxRestarts: 0.5 }, 'maxRestarts'],
  ])('refuses %j before anything is started', async (options, name) => {
    await expect(boot([{ prints: [READY] }], options)).rejects.toThrow(`${name}: must be `)
    expect(await pids()).toEqual([])
  })

  it('resolves at the ready line, with console, QMP and ports', async () => {
    const log: string[] = []
    const guest = await boot([{ prints: ['hello\r\n', READY] }], { ports: ['org.test'], log: (text) => log.push(text) })
    expect(guest.boot.restarts).toEqual([])
    expect(await pids()).toEqual([guest.pid])
    expect(await guest.qmp.execute('query-status')).toEqual({})
    const port = guest.port('org.test')
    port.write('ping')
    expect(String(await new Promise((resolve) => port.once('data', resolve)))).toBe('echo ping')
    expect(() => guest.port('other')).toThrow(/^port other: there is no such port. The guest has org.test.$/)
    guest.type('ls\n')
    await guest.waitFor('typed: ls', { timeoutMs: 1000 })
    await guest.close()
    expect(log.join('')).toBe(`hello\r\n${READY}typed: ls\n`)
    await expect(guest.waitFor('never', { timeoutMs: 1000 })).rejects.toMatchObject({ code: 'CLOSED' })
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
    const guest = await boot([{ prints: ['Booting from ROM\r\n'] }, { prints: [READY] }], {
      log: silenceAfter('Booting', 10_000),
      onRestart: (restart) => restarts.push(restart),
    })
    expect(guest.boot).toEqual({ ms: 0, restarts: [{ attempt: 1, afterMs: 10_000, lastLines: ['Booting from ROM'] }] })
    expect(restarts).toEqual(guest.boot.restarts)
    expect(await pids()).toHaveLength(2)
    await guest.close()
  })

  it('rejects with what onRestart throws, and leaves nothing behind', async () => {
    const broken = new Error('broken')
    const onRestart = () => {
      throw broken
    }
    const booting = boot([{ prints: ['Booting\r\n'] }], { log: silenceAfter('Booting', 10_000), onRestart })
    await expect(booting).rejects.toBe(broken)
    expect(await pids()).toHaveLength(1)
  })

  it('boots on when log throws, which is uncaught', async () => {
    using uncaught = catchUncaught()
    const broken = new Error('broken')
    const log = () => {
      throw broken
    }
    const guest = await boot([{ prints: ['hello\r\n', READY] }], { log })
    expect(await uncaught.next()).toBe(broken)
    expect(guest.console.text).toContain('hello')
    await guest.close()
  })

  it('gives up after two restarts', async () => {
    const booting = boot([{ prints: ['Booting from ROM\r\n'] }], { silenceTimeoutMs: 700, log: silenceAfter('Booting', 700) })
    await expect(booting).rejects.toMatchObject({
      code: 'BOOT_SILENT',
      op: 'boot',
      what: 'the console went silent in each of 3 attempts, given up after 700 ms, 700 ms, 700 ms',
      retryable: true,
      console: ['Booting from ROM'],
    })
    expect(await pids()).toHaveLength(3)
  })

  it('counts silence from the last output', async () => {
    const guest = await boot([{ prints: ['one\r\n'], printsLater: [READY] }], {
      silenceTimeoutMs: 700,
      log: silenceAfter('one', 699),
    })
    expect(guest.boot).toEqual({ ms: 699, restarts: [] })
    await guest.close()
    const late = boot([{ prints: ['one\r\n'] }], { silenceTimeoutMs: 700, maxRestarts: 0, log: silenceAfter('one', 700) })
    await expect(late).rejects.toMatchObject({ code: 'BOOT_SILENT' })
  })

  it('notices a guest that never says a word', async () => {
    const armed = clock.armed(700)
    const booting = expect(boot([{}], { silenceTimeoutMs: 700, maxRestarts: 0 })).rejects.toMatchObject({
      code: 'BOOT_SILENT',
      console: [],
    })
    await armed
    clock.advance(700)
    await booting
  })

  it('bounds the boot as a whole', async () => {
    const options = { bootTimeoutMs: 5000, silenceTimeoutMs: 60_000, log: silenceAfter('still', 5000) }
    const expected = { code: 'DEADLINE', console: ['still at it'] }
    await expect(boot([{ prints: ['still at it\r\n'] }], options)).rejects.toMatchObject(expected)
  })

  it("tells QEMU's own complaint when it exits at once, whatever it waits for", async () => {
    const stderr = "qemu-system-x86_64: unsupported machine type 'x'\n"
    const expected = {
      code: 'UNSUPPORTED',
      message: expect.stringMatching(/exited with status 1: qemu-system-x86_64: unsupported machine/),
    }
    await expect(boot([{ stderr }])).rejects.toMatchObject(expected)
    await expect(boot([{ stderr }], { ready: false })).rejects.toMatchObject(expected)
  })

  it('tells the complaint of a QEMU that does not get hold of a file', async () => {
    const stderr = "qemu-system-x86_64: -drive file=/no: Could not open '/no': No such file or directory\n"
    await expect(boot([{ stderr }])).rejects.toMatchObject({ code: 'EXITED', message: expect.stringMatching(/Could not open/) })
  })

  it('shows the last console lines when the guest dies while booting', async () => {
    const booting = boot([{ prints: ['Kernel panic - not syncing: no init found\r\n'], exits: 0 }])
    await expect(booting).rejects.toMatchObject({
      code: 'PANIC',
      op: 'boot',
      what: 'Kernel panic - not syncing: no init found; QEMU exited with status 0',
      console: ['Kernel panic - not syncing: no init found'],
    })
  })

  it('tells a panic that comes after the boot', async () => {
    const guest = await boot([
      { prints: [READY], printsLater: ['[ 9.1] Kernel panic - not syncing: sysrq\r\n', 'trace\r\n'], exits: 0 },
    ])
    await expect(guest.waitFor('never', { timeoutMs: 1000 })).rejects.toMatchObject({
      code: 'PANIC',
      what: expect.stringContaining('Kernel panic - not syncing: sysrq; QEMU exited with status 0'),
    })
  })

  it('gives up a boot that panics and would reboot for ever', async () => {
    const panics = { prints: ['Kernel panic - not syncing: no init found\r\n'] }
    await expect(boot([panics], { reboot: true })).rejects.toMatchObject({
      code: 'PANIC',
      op: 'boot',
      what: 'Kernel panic - not syncing: no init found',
    })
    expect(await pids()).toHaveLength(1)
  })

  it('tells a wait how QEMU was killed', async () => {
    const guest = await boot([{ prints: [READY] }])
    const wait = guest.waitFor('never', { timeoutMs: 1000 })
    guest.kill()
    await expect(wait).rejects.toMatchObject({ code: 'EXITED', what: expect.stringContaining('QEMU was killed by SIGKILL') })
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
    const wait = guest.waitFor('never', { timeoutMs: 1000 })
    later.abort(reason)
    await expect(wait).rejects.toMatchObject({ code: 'ABORTED', cause: reason })
    expect(await guest.exited).toMatchObject({ signal: 'SIGKILL' })
  })

  it('says what to install when QEMU is missing', async () => {
    const expected = {
      code: 'TOOL_MISSING',
      message: expect.stringMatching(
        /^no-such-qemu: it is not installed or not executable. Install it with: apt-get install qemu-system-x86/,
      ),
    }
    await expect(boot([{}], { qemu: 'no-such-qemu' })).rejects.toMatchObject(expected)
    await expect(boot([{}], { qemu: join(dir, 'no-such-qemu') })).rejects.toMatchObject({ code: 'TOOL_MISSING' })
  })

  it('goes on when the file for its console is full', async () => {
    const warned = new Promise<Error>((resolve) => {
      // Node has warnings of its own.
      process.on('warning', function look(warning) {
        if (!warning.message.includes('/dev/full')) return
        process.off('warning', look)
        resolve(warning)
      })
    })
    const guest = await boot([{ prints: ['hello\r\n', READY] }], { log: '/dev/full' })
    expect(await warned).toMatchObject({ message: expect.stringMatching(/\/dev\/full: ENOSPC.*Nothing more/) })
    expect(guest.console.text).toContain('hello')
    await guest.close()
  })

  it('tells of a QEMU that cannot be started at all', async () => {
    const append = 'x'.repeat(1 << 20)
    await expect(boot([{}], { append })).rejects.toMatchObject({ code: 'EXITED', what: expect.stringContaining('E2BIG') })
    expect(await pids()).toEqual([])
  })

  it('refuses bad options before anything starts', async () => {
    await expect(boot([{}], { cpus: 0 })).rejects.toThrow(/^cpus: must be /)
    expect(await pids()).toEqual([])
  })
})

import { describe, expect, it } from 'vitest'
import { GuestConsole } from './console.js'
import { QemuError } from './errors.js'
import { ManualClock } from './fixtures/manual-clock.js'

function setup() {
  const clock = new ManualClock()
  const console = new GuestConsole(clock)
  return { clock, console, print: (text: string) => console.push(Buffer.from(text)) }
}
const gone = new QemuError('EXITED', 'QEMU exited with status 0')

describe('GuestConsole', () => {
  it('finds what was printed before, and what comes later in any pieces', async () => {
    const { clock, console, print } = setup()
    print('one\r\ntwo\r\n')
    expect((await console.waitFor(/^(t)wo$/, { deadlineMs: 1 }))[1]).toBe('t')
    const wait = console.waitFor('a.b[c]', { deadlineMs: 1 })
    for (const piece of ['x aXb[c]\nx a', '.b', '[c] y']) print(piece)
    expect((await wait).input).toBe('x a.b[c] y')
    expect(clock.pending).toBe(0)
  })

  it('matches a prompt without a line end, and characters that come in two pieces', async () => {
    const { console, print } = setup()
    print('login: ')
    await console.waitFor(/login: $/, { deadlineMs: 1 })
    const umlaut = Buffer.from('ü')
    console.push(umlaut.subarray(0, 1))
    console.push(umlaut.subarray(1))
    expect(console.text).toBe('login: ü')
  })

  it('keeps no more than it can hold of a guest that prints without an end', () => {
    const { console, print } = setup()
    const chunk = 'x'.repeat(1 << 20)
    for (let i = 0; i < 20; i++) print(chunk)
    expect(console.lineCount).toBe(20 * 16 - 1)
    expect(console.text.length).toBeLessThan(17 << 20)
    print('\nlast\n')
    expect(console.tail(1)).toEqual(['last'])
    expect(console.lineCount).toBe(20 * 16 + 1)
  })

  it('looks at every line even with a global expression', async () => {
    const { console, print } = setup()
    const regexp = /go/g
    print('go\ngo\n')
    for (const fromLine of [0, 1]) expect((await console.waitFor(regexp, { deadlineMs: 1, fromLine }))[0]).toBe('go')
  })

  it('leaves out lines before fromLine', async () => {
    const { clock, console, print } = setup()
    print('done\n')
    const wait = console.waitFor('done', { deadlineMs: 5, fromLine: console.lineCount })
    clock.advance(5)
    await expect(wait).rejects.toMatchObject({ code: 'DEADLINE' })
  })

  it('shows the last lines when time is up', async () => {
    const { clock, console, print } = setup()
    for (let i = 1; i <= 100; i++) print(`line ${i}\n\n`)
    const wait = console.waitFor(/never/, { deadlineMs: 5 })
    clock.advance(5)
    const error = await wait.catch((error) => error)
    expect(error.message).toMatch(/^console: waiting for \/never\/: nothing after 5 ms\nlast console lines:\n {2}\| line 76\n/)
    expect(error.console).toHaveLength(25)
  })

  it('ends waits and iterations when the guest ends', async () => {
    const { clock, console, print } = setup()
    const wait = console.waitFor(/never/, { deadlineMs: 5 })
    const iterated = collect(console)
    print('one\ntw')
    print('o\nthree')
    console.end(gone)
    console.end(new QemuError('CLOSED', 'later'))
    await expect(wait).rejects.toMatchObject({ code: 'EXITED', console: ['one', 'two', 'three'] })
    await expect(console.waitFor(/never/, { deadlineMs: 5 })).rejects.toThrow(/QEMU exited with status 0/)
    await expect(console.waitFor(/three/, { deadlineMs: 5 })).resolves.toBeTruthy()
    expect(await iterated).toEqual(['one', 'two', 'three'])
    expect(clock.pending).toBe(0)
  })

  it('stops an iteration on abort', async () => {
    const { console, print } = setup()
    const abort = new AbortController()
    const lines = collect(console.lines({ signal: abort.signal }))
    print('one\n')
    await Promise.resolve()
    abort.abort()
    expect(await lines).toEqual(['one'])
  })

  it('keeps a bounded number of lines, and counts on', async () => {
    const { console, print } = setup()
    for (let i = 0; i < 60; i++) print(`${'x\n'.repeat(1000)}`)
    expect(console.lineCount).toBe(60_000)
    expect(console.text.split('\n')).toHaveLength(50_001)
    print('last\n')
    await expect(console.waitFor('last', { deadlineMs: 1, fromLine: 60_000 })).resolves.toBeTruthy()
  })
})

async function collect(lines: AsyncIterable<string>): Promise<string[]> {
  const all: string[] = []
  for await (const line of lines) all.push(line)
  return all
}

import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { GuestConsole } from './console.js'
import { QemuError } from './errors.js'

function setup() {
  const clock = new ManualClock()
  const console = new GuestConsole(clock)
  return { clock, console, print: (text: string) => console.push(Buffer.from(text)) }
}
const gone = new QemuError({ code: 'EXITED', subject: '', what: 'QEMU exited with status 0' })

afterEach(() => void vi.restoreAllMocks())

describe('GuestConsole', () => {
  it('finds what was printed before, and what comes later in any pieces', async () => {
    const { clock, console, print } = setup()
    print('one\r\ntwo\r\n')
    expect((await console.waitFor(/^(t)wo$/, { timeoutMs: 1 }))[1]).toBe('t')
    const wait = console.waitFor('a.b[c]', { timeoutMs: 1 })
    for (const piece of ['x aXb[c]\nx a', '.b', '[c] y']) print(piece)
    expect((await wait).input).toBe('x a.b[c] y')
    expect(clock.pending).toBe(0)
  })

  it('matches a prompt without a line end, and characters that come in two pieces', async () => {
    const { console, print } = setup()
    print('login: ')
    await console.waitFor(/login: $/, { timeoutMs: 1 })
    const umlaut = Buffer.from('ü')
    console.push(umlaut.subarray(0, 1))
    console.push(umlaut.subarray(1))
    expect(console.text).toBe('login: ü')
  })

  it('goes on with the oldest line that is kept if its reader is slow', async () => {
    const { console, print } = setup()
    print('first\n')
    const lines = console.lines()
    expect((await lines.next()).value).toBe('first')
    // Enough to drop more than has been read.
    for (let i = 0; i < 3; i++) print('x\n'.repeat(50_000))
    console.end(gone)
    const rest: string[] = []
    for await (const line of lines) rest.push(line)
    expect(rest).toEqual(Array.from({ length: 50_000 }, () => 'x'))
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

  it('cuts a line that is too long, whether its end comes with it or later', () => {
    for (const pieces of [[`${'x'.repeat(100_000)}\n`], ['x'.repeat(100_000), '\n']]) {
      const { console, print } = setup()
      for (const piece of pieces) print(piece)
      expect(console.text.split('\n').map(({ length }) => length)).toEqual([64 << 10, 100_000 - (64 << 10), 0])
    }
  })

  it('reads what comes once, in pieces however small', () => {
    const { console, print } = setup()
    let searched = 0
    const original = String.prototype.indexOf
    vi.spyOn(String.prototype, 'indexOf').mockImplementation(function (this: string, ...args: [string, number?]) {
      searched += this.length - (args[1] ?? 0)
      return original.apply(this, args)
    })
    for (let i = 0; i < 10_000; i++) print('x')
    print('\n')
    expect(searched).toBe(10_001)
    vi.restoreAllMocks()
    expect(console.text).toBe(`${'x'.repeat(10_000)}\n`)
  })

  it('looks for a string in what comes, not again in what was there', async () => {
    const { console, print } = setup()
    let looked = 0
    const original = String.prototype.includes
    vi.spyOn(String.prototype, 'includes').mockImplementation(function (this: string, ...args: [string, number?]) {
      looked += this.length
      return original.apply(this, args)
    })
    const matched = vi.spyOn(String.prototype, 'match')
    const wait = console.waitFor('needle', { timeoutMs: 1 })
    for (let i = 0; i < 10_000; i++) print('x')
    expect(matched).not.toHaveBeenCalled()
    for (const character of 'needle') print(character)
    vi.restoreAllMocks()
    expect(await wait).toMatchObject({ index: 10_000, input: `${'x'.repeat(10_000)}needle` })
    expect(looked).toBeLessThan(100_000)
  })

  it('looks at a long unfinished line with an expression once per turn of the event loop', async () => {
    const { console, print } = setup()
    let looked = 0
    const original = String.prototype.match
    vi.spyOn(String.prototype, 'match').mockImplementation(function (this: string, ...args: unknown[]) {
      looked += this.length
      return Reflect.apply(original, this, args) as RegExpMatchArray | null
    })
    const wait = console.waitFor(/\$ $/, { timeoutMs: 1 })
    for (let i = 0; i < 10_000; i++) print('x')
    print('$ ')
    const found = await wait
    vi.restoreAllMocks()
    expect(found.input).toBe(`${'x'.repeat(10_000)}$ `)
    // Those of the short line that it was, and the long one once.
    expect(looked).toBeLessThan(1_000_000)
  })

  it('finds a string wherever a line is cut', async () => {
    const { console, print } = setup()
    print('x'.repeat((64 << 10) - 2))
    const first = console.waitFor('ab', { timeoutMs: 1 })
    const second = console.waitFor('cd', { timeoutMs: 1 })
    const gone = console.waitFor('bc', { timeoutMs: 1 })
    for (const piece of ['a', 'bc', 'd', '\nb']) print(piece)
    expect([(await first).index, (await second).index]).toEqual([(64 << 10) - 2, 0])
    print('c')
    expect(await gone).toMatchObject({ index: 0, input: 'bc' })
  })

  it('finds a prompt that is there for a moment only', async () => {
    const { console, print } = setup()
    const wait = console.waitFor(/^login: $/, { timeoutMs: 1 })
    print('login: ')
    print('root\n')
    await wait
  })

  it('looks at a long unfinished line before it says that no more comes', async () => {
    const { console, print } = setup()
    const wait = console.waitFor(/\$ $/, { timeoutMs: 1 })
    print(`${'x'.repeat(10_000)}$ `)
    console.end(gone)
    await wait
  })

  it('moves the lines that it keeps now and then, not for each that comes', () => {
    const { console, print } = setup()
    print('x\n'.repeat(50_000))
    let moved = 0
    for (const method of ['splice', 'slice'] as const) {
      const original = Array.prototype[method] as (...args: unknown[]) => unknown[]
      vi.spyOn(Array.prototype, method).mockImplementation(function (this: unknown[], ...args: unknown[]) {
        moved += this.length
        return original.apply(this, args)
      })
    }
    for (let i = 0; i < 60_000; i++) print('y\n')
    expect(moved).toBeLessThan(300_000)
    vi.restoreAllMocks()
    expect(console.lineCount).toBe(110_000)
    expect(console.text).toBe('y\n'.repeat(50_000))
  })

  it('takes the returns off the end of a line, and leaves the others', () => {
    const { console, print } = setup()
    print(`a\rb\r\r\n${'\r'.repeat(100)}c\n\r\n`)
    expect(console.text).toBe(`a\rb\n${'\r'.repeat(100)}c\n\n`)
    const replace = vi.spyOn(String.prototype, 'replace')
    print(`${'\r'.repeat(1000)}c\n`)
    // An expression such as /\r+$/ starts again at each of them.
    expect(replace).not.toHaveBeenCalled()
  })

  it('looks at every line even with a global expression', async () => {
    const { console, print } = setup()
    const regexp = /go/g
    print('go\ngo\n')
    for (const fromLine of [0, 1]) expect((await console.waitFor(regexp, { timeoutMs: 1, fromLine }))[0]).toBe('go')
  })

  it('leaves out lines before fromLine', async () => {
    const { clock, console, print } = setup()
    print('done\n')
    const wait = console.waitFor('done', { timeoutMs: 5, fromLine: console.lineCount })
    clock.advance(5)
    await expect(wait).rejects.toMatchObject({ code: 'DEADLINE' })
  })

  it('shows the last lines when time is up', async () => {
    const { clock, console, print } = setup()
    for (let i = 1; i <= 100; i++) print(`line ${i}\n\n`)
    const wait = console.waitFor(/never/, { timeoutMs: 5 })
    clock.advance(5)
    const error = await wait.catch((error) => error)
    expect(error.message).toMatch(
      /^waitFor \/never\/: no console line matches within 5 ms\nlast console lines:\n {2}\| line 76\n/,
    )
    expect(error.console).toHaveLength(25)
  })

  it('ends waits and iterations when the guest ends', async () => {
    const { clock, console, print } = setup()
    const wait = console.waitFor(/never/, { timeoutMs: 5 })
    const iterated = collect(console)
    print('one\ntw')
    print('o\nthree')
    console.end(gone)
    console.end(new QemuError({ code: 'CLOSED', subject: '', what: 'later' }))
    await expect(wait).rejects.toMatchObject({ code: 'EXITED', console: ['one', 'two', 'three'] })
    await expect(console.waitFor(/never/, { timeoutMs: 5 })).rejects.toThrow(/QEMU exited with status 0/)
    await expect(console.waitFor(/three/, { timeoutMs: 5 })).resolves.toBeTruthy()
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
    await expect(console.waitFor('last', { timeoutMs: 1, fromLine: 60_000 })).resolves.toBeTruthy()
  })

  it('shows as many lines of its end as are wanted, none too', () => {
    const { console, print } = setup()
    print('a\nb\nc\n')
    expect(console.tail(0)).toEqual([])
    expect(console.tail(2)).toEqual(['b', 'c'])
    for (const count of [-1, 1.5, Number.NaN, '1', null])
      expect(() => console.tail(count as number)).toThrow(/^count: must be an integer of at least 0, got /)
  })

  it.each<[unknown, object, string]>([
    [undefined, {}, 'pattern: must be a string or a RegExp, got undefined'],
    [5, {}, 'pattern: must be a string or a RegExp, got 5'],
    [{ source: 'x' }, {}, 'pattern: must be a string or a RegExp, got an object'],
    ['x', { fromLine: Number.NaN }, 'fromLine: must be an integer of at least 0, got NaN'],
    ['x', { fromLine: '1' }, 'fromLine: must be an integer of at least 0, got "1"'],
    ['x', { fromLine: -1 }, 'fromLine: must be an integer of at least 0, got -1'],
    ['x', { signal: {} }, 'signal: must be an AbortSignal, got an object'],
    ['x', { timeoutMs: undefined }, 'timeoutMs: must be a number of milliseconds, got undefined'],
  ])('refuses to wait for %o with %o', async (pattern, options, message) => {
    const { clock, console, print } = setup()
    print('x\n')
    const wait = console.waitFor(pattern as string, { timeoutMs: 1, ...options })
    await expect(wait).rejects.toThrow(message)
    expect(clock.pending).toBe(0)
  })

  it('refuses to go through lines from none, and to be waited for with no clock', async () => {
    const { console } = setup()
    await expect(console.lines({ fromLine: Number.NaN }).next()).rejects.toThrow(/^fromLine: /)
    await expect(console.lines({ signal: {} as AbortSignal }).next()).rejects.toThrow(/^signal: /)
    expect(() => new GuestConsole(undefined as never)).toThrow(/^clock: /)
  })
})

async function collect(lines: AsyncIterable<string>): Promise<string[]> {
  const all: string[] = []
  for await (const line of lines) all.push(line)
  return all
}

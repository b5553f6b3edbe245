import { PassThrough, Readable } from 'node:stream'
import { expect, test } from 'vitest'
import { type Io, Output } from './output.js'

function terminal(): PassThrough & { isTTY: true } {
  return Object.assign(new PassThrough(), { isTTY: true as const })
}

function ioOf(io: Partial<Io>): Io {
  const { signal } = new AbortController()
  return { stdin: Readable.from([]), stdout: new PassThrough(), stderr: new PassThrough(), env: {}, signal, ...io }
}

async function printed(io: Partial<Io>, json = false): Promise<string> {
  const stdout = io.stdout ?? new PassThrough()
  await new Output(ioOf({ ...io, stdout }), json).result({ a: 1 }, (paint) => paint('red', 'text'))
  return String((stdout as PassThrough).read())
}

test('colour is for terminals, and NO_COLOR takes it away', async () => {
  expect(await printed({ stdout: terminal() })).toBe('\u001b[31mtext\u001b[39m\n')
  expect(await printed({ stdout: terminal(), env: { NO_COLOR: '1' } })).toBe('text\n')
  expect(await printed({ stdout: terminal(), env: { NO_COLOR: '' } })).toContain('\u001b[31m')
  expect(await printed({ stdout: terminal(), env: { TERM: 'dumb' } })).toBe('text\n')
  expect(await printed({})).toBe('text\n')
  expect(await printed({ stdout: terminal() }, true)).toBe('{"a":1}\n')
})

test('a failure goes to stderr, and to stdout under --json', async () => {
  for (const json of [false, true]) {
    const [stdout, stderr] = [new PassThrough(), new PassThrough()]
    await new Output(ioOf({ stdout, stderr }), json).failure({ a: 1 }, () => 'went wrong')
    expect([stdout.read()?.toString() ?? '', stderr.read()?.toString() ?? '']).toEqual(
      json ? ['{"a":1}\n', ''] : ['', 'upcall: went wrong\n'],
    )
  }
})

test('nothing spins without a terminal', () => {
  for (const [stderr, json, env] of [
    [new PassThrough(), false, {}],
    [terminal(), true, {}],
    [terminal(), false, { CI: 'true' }],
    [terminal(), false, { TERM: 'dumb' }],
  ] as const) {
    const progress = new Output(ioOf({ stderr, env }), json).progress('under way')
    progress.update('still')
    progress[Symbol.dispose]()
    expect(stderr.read()).toBeNull()
  }
})

test('forced, progress is lines anywhere, and forbidden it is nothing', () => {
  for (const [options, json, env, text] of [
    [{ show: true }, false, {}, 'still\n'],
    [{ show: true }, true, {}, '{"event":"progress","n":1}\n'],
    [{ show: false }, false, {}, null],
    [{}, false, {}, null],
  ] as const) {
    const stderr = new PassThrough()
    const progress = new Output(ioOf({ stderr, env }), json).progress('under way', options)
    expect(progress.everyMs).toBe(text === null ? undefined : 10_000)
    progress.update('still', { n: 1 })
    expect(stderr.read()?.toString() ?? null).toBe(text)
  }
  // At a terminal that something else uses, and in CI.
  for (const [options, env] of [
    [{ show: true, shared: true }, {}],
    [{ show: true }, { CI: 'true' }],
    [{ show: false }, {}],
    [{ shared: true }, {}],
  ] as const) {
    const stderr = terminal()
    const progress = new Output(ioOf({ stderr, env }), false).progress('under way', options)
    progress.update('still')
    expect(stderr.read()?.toString()).toBe('show' in options && options.show ? 'still\n' : undefined)
  }
})

test('lines of progress do not pile up for a reader that is behind', () => {
  const stderr = new PassThrough({ highWaterMark: 1 })
  const progress = new Output(ioOf({ stderr }), false).progress('', { show: true })
  for (let i = 0; i < 5; i++) progress.update(String(i))
  expect(String(stderr.read())).toBe('0\n')
})

test('a result waits for a stdout that is full', async () => {
  const stdout = new PassThrough({ highWaterMark: 1 })
  const output = new Output(ioOf({ stdout }), true)
  let done = false
  const written = output.result({ a: 1 }, () => '').then(() => (done = true))
  await new Promise(setImmediate)
  expect(done).toBe(false)
  stdout.resume()
  await written
})

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

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { expect, onTestFinished, test } from 'vitest'
import { type Line, linesOf, readInput } from './input.js'
import type { Io } from './output.js'

async function cut(text: string, size: number, longest = 100): Promise<Line[]> {
  const bytes = Buffer.from(text)
  async function* chunks() {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
  }
  return collect(linesOf(chunks(), longest))
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

test('lines are the same however the bytes arrive', async () => {
  for (let size = 1; size < 20; size++) {
    expect(await cut('one\r\n\nthrée\nlast', size)).toEqual([
      { number: 1, text: 'one' },
      { number: 2, text: '' },
      { number: 3, text: 'thrée' },
      { number: 4, text: 'last' },
    ])
  }
  expect(await cut('', 1)).toEqual([])
  expect(await cut('a\n', 9)).toEqual([{ number: 1, text: 'a' }])
})

test('a line that is too long is reported, and the lines after it are whole', async () => {
  for (let size = 1; size < 20; size++) {
    expect(await cut('1234\n12345\n12\n123456', size, 4)).toEqual([
      { number: 1, text: '1234' },
      { number: 2, text: undefined },
      { number: 3, text: '12' },
      { number: 4, text: undefined },
    ])
  }
})

test('input is a file, or stdin for none and for -', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'upcall-cli-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'in')
  writeFileSync(file, 'from the file')
  const read = async (name: string | undefined) => {
    const io = { stdin: Readable.from([Buffer.from('from stdin')]), signal: new AbortController().signal } as unknown as Io
    return Buffer.concat(await collect(readInput(name, io))).toString()
  }
  expect(await read(file)).toBe('from the file')
  expect(await read(undefined)).toBe('from stdin')
  expect(await read('-')).toBe('from stdin')
  await expect(read(join(directory, 'none'))).rejects.toThrow(/none: cannot be read: no such file or directory \(ENOENT\)/)
  await expect(read(directory)).rejects.toThrow(/cannot be read: .* \(EISDIR\)/)
})

test('an interruption ends the reading and closes what was read', async () => {
  const stdin = new PassThrough()
  const controller = new AbortController()
  stdin.write('first')
  const chunks = readInput(undefined, { stdin, signal: controller.signal } as unknown as Io)
  expect(String((await chunks.next()).value)).toBe('first')
  const rest = chunks.next()
  controller.abort()
  expect(await rest).toEqual({ done: true, value: undefined })
  expect(stdin.destroyed).toBe(true)
})

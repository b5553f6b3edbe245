import { constants } from 'node:fs'
import { type FileHandle, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openPcap } from './file.js'
import { readCapture } from './read.js'
import { PcapWriter } from './writer.js'

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'upcall-pcap-'))
})
afterEach(() => rm(directory, { recursive: true }))

async function* bytesOf(path: string) {
  yield await readFile(path)
}

async function lengths(path: string): Promise<number[]> {
  const found: number[] = []
  for await (const { bytes } of readCapture(bytesOf(path))) found.push(bytes.length)
  return found
}

test('each packet is in the file at once, before it is closed', async () => {
  const path = join(directory, 'a.pcap')
  await writeFile(path, 'what was there before is replaced, whole')
  await using file = await openPcap(path)
  file.write(Date.now(), new Uint8Array(10))
  await expect.poll(() => lengths(path)).toEqual([10])
  file.write(Date.now(), new Uint8Array(300_000))
  file.write(Date.now(), new Uint8Array(3))
  await file.close()
  expect(await lengths(path)).toEqual([10, 262_144, 3])
  file.write(Date.now(), new Uint8Array(3))
  expect([file.packets, file.dropped]).toEqual([3, 1])
})

test('what does not fit while the disk is slow is left out, whole packets only', async () => {
  const path = join(directory, 'a.pcap')
  await using file = await openPcap(path, { mostWaiting: 1000 })
  for (let i = 0; i < 10; i++) file.write(0, new Uint8Array(400))
  expect([file.packets, file.dropped]).toEqual([2, 8])
  await file.close()
  expect(await lengths(path)).toEqual([400, 400])
})

test('a path that cannot be opened is told', async () => {
  await expect(openPcap(join(directory, 'no', 'a.pcap'))).rejects.toMatchObject({
    code: 'OUTPUT',
    subject: join(directory, 'no', 'a.pcap'),
    what: expect.stringContaining('ENOENT'),
  })
})

test('a disk that is full is told when it is opened', async () => {
  await expect(openPcap('/dev/full')).rejects.toMatchObject({ code: 'OUTPUT', what: expect.stringContaining('ENOSPC') })
})

test('a file that cannot be written any more: told once, nothing is thrown before close', async () => {
  const { PcapFile } = await import('./file.js')
  const path = join(directory, 'a.pcap')
  await writeFile(path, '')
  // Writing to a handle that is open for reading fails.
  const handle = await open(path, constants.O_RDONLY)
  const errors: unknown[] = []
  const file = new PcapFile(path, handle, new PcapWriter(), { onError: (error) => errors.push(error) })
  file.write(0, new Uint8Array(1))
  file.write(0, new Uint8Array(1))
  await expect.poll(() => errors).toHaveLength(1)
  file.write(0, new Uint8Array(1))
  expect([file.packets, file.dropped]).toEqual([0, 3])
  await expect(file.close()).rejects.toBe(errors[0])
})

test('of a packet that the disk takes in part, no byte stays', async () => {
  const { PcapFile } = await import('./file.js')
  const path = join(directory, 'a.pcap')
  const handle = await open(path, 'w')
  const writer = new PcapWriter()
  await handle.write(writer.header())
  let room = 600
  // A disk that is full after so many bytes.
  const disk = {
    async write(bytes: Uint8Array, at: number, length: number) {
      if (room === 0) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
      const { bytesWritten } = await handle.write(bytes, at, Math.min(length, room))
      room -= bytesWritten
      return { bytesWritten }
    },
    truncate: (length: number) => handle.truncate(length),
    close: () => handle.close(),
  } as unknown as FileHandle
  const file = new PcapFile(path, disk, writer, {})
  file.write(0, new Uint8Array(500))
  await expect.poll(() => lengths(path)).toEqual([500])
  file.write(0, new Uint8Array(500))
  await expect(file.close()).rejects.toMatchObject({ code: 'OUTPUT', what: expect.stringContaining('no space left') })
  expect(await lengths(path)).toEqual([500])
})

test('a packet that is cut says how long it was', async () => {
  const path = join(directory, 'a.pcap')
  await using file = await openPcap(path, { snapLength: 100 })
  file.write(0, new Uint8Array(300))
  await file.close()
  const found: number[][] = []
  for await (const { bytes, length } of readCapture(bytesOf(path))) found.push([bytes.length, length])
  expect(found).toEqual([[100, 300]])
})

import { chmodSync, linkSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { fitsSocket, isLongPathError, LongPathError, longestSocketPath, shortNameIn, withShortPath } from './long-path.js'

const linux = process.platform === 'linux'
const openDescriptors = () => readdirSync('/proc/self/fd').length

let root: string
let deep: string
let server: Server | undefined

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'upcall-long-'))
  deep = join(root, 'd'.repeat(200), 'e'.repeat(200))
  mkdirSync(deep, { recursive: true })
})
afterEach(() => {
  server?.close()
  server = undefined
  rmSync(root, { recursive: true, force: true })
})

/** A server that says `text`, at a path of any length. */
async function serve(path: string, text = 'here'): Promise<void> {
  const name = join(root, 's')
  const listening = createServer((socket) => socket.end(text))
  server = listening
  await new Promise<void>((resolve) => listening.listen(name, resolve))
  linkSync(name, path)
}

const open: Connect = (path) => withShortPath(path, (short) => connect(short))
type Connect = (path: string) => Socket

async function read(path: string, dial: Connect = open): Promise<string> {
  let text = ''
  for await (const chunk of dial(path)) text += chunk
  return text
}

test('a path that fits stays as it is', () => {
  const path = `/${'p'.repeat(longestSocketPath() - 1)}`
  expect(withShortPath(path, (short) => short)).toBe(path)
  expect(fitsSocket(path)).toBe(true)
  expect(fitsSocket(`${path}p`)).toBe(false)
  expect(fitsSocket(`/${'ü'.repeat(53)}`)).toBe(true)
  expect(fitsSocket(`/${'ü'.repeat(54)}`)).toBe(false)
  const name = shortNameIn('/run', 'name')
  expect(name.path).toBe('/run/name')
  name.close()
})

test.each([
  ['darwin', 103],
  ['freebsd', 103],
  ['linux', 107],
] as const)('on %s a socket has at most %d bytes of path', (platform, length) => {
  expect(longestSocketPath(platform)).toBe(length)
})

test('another system than Linux has no short path', () => {
  const system = { platform: 'darwin', descriptors: '/proc/self/fd' } as const
  const path = `/${'p'.repeat(103)}`
  const failed = caught(() => withShortPath(path, String, system))
  expect(failed).toBeInstanceOf(LongPathError)
  expect(isLongPathError(failed)).toBe(true)
  expect(failed).toMatchObject({
    code: 'ENAMETOOLONG',
    subject: path,
    what: "the path has 104 bytes, and this system's sockets have paths of at most 103",
    next: 'Use a shorter path.',
  })
  expect(caught(() => shortNameIn('/run', 'n'.repeat(100), system))).toMatchObject({ subject: `/run/${'n'.repeat(100)}` })
})

function caught(act: () => unknown): unknown {
  try {
    act()
  } catch (error) {
    return error
  }
  throw new Error('it went well')
}

describe.runIf(linux)('a path that does not fit', () => {
  test('connects, with a name of up to 255 bytes, and leaves no descriptor open', async () => {
    const path = join(deep, 'n'.repeat(255))
    await serve(path)
    const before = openDescriptors()
    const socket = open(path)
    // The socket's own.
    expect(openDescriptors()).toBe(before + 1)
    expect(await read(path, () => socket)).toBe('here')
  })

  test('may be relative, and lead through symlinks', async () => {
    await serve(join(deep, 'vm.sock'))
    expect(await read(relative(process.cwd(), join(deep, 'vm.sock')))).toBe('here')
    const link = join(root, 'l'.repeat(200))
    symlinkSync(deep, link)
    symlinkSync(join(link, 'vm.sock'), join(root, 'm'.repeat(200)))
    expect(await read(join(link, 'vm.sock'))).toBe('here')
    expect(await read(join(root, 'm'.repeat(200)))).toBe('here')
  })

  test('leads to the same directory although that is renamed meanwhile', async () => {
    await serve(join(deep, 'vm.sock'))
    const name = shortNameIn(deep, 'vm.sock')
    renameSync(deep, `${deep}.moved`)
    try {
      expect(await read(name.path)).toBe('here')
    } finally {
      name.close()
    }
  })

  test('fails with the errno of the file system, and leaves no descriptor open', () => {
    const before = openDescriptors()
    const codes = [join(deep, 'missing'), join(deep, 'n'.repeat(256)), `/${'p/'.repeat(2100)}x`].map(
      (path) => caught(() => open(path)) as NodeJS.ErrnoException,
    )
    expect(codes.map(({ code }) => code)).toEqual(['ENOENT', 'ENAMETOOLONG', 'ENAMETOOLONG'])
    const broken = new Error('no')
    expect(
      caught(() =>
        withShortPath(deep, () => {
          throw broken
        }),
      ),
    ).toBe(broken)
    expect(caught(() => shortNameIn(join(deep, 'missing'), 'x'))).toMatchObject({ code: 'ENOENT' })
    expect(openDescriptors()).toBe(before)
  })

  test('needs /proc, and says so', () => {
    const before = openDescriptors()
    const system = { platform: 'linux', descriptors: join(root, 'proc') } as const
    expect(caught(() => withShortPath(deep, String, system))).toMatchObject({
      code: 'ENAMETOOLONG',
      what: `the path has ${Buffer.byteLength(deep)} bytes, more than the 107 of a socket's address, and ${root}/proc is missing`,
      next: 'Mount /proc, or use a shorter path.',
    })
    expect(openDescriptors()).toBe(before)
  })

  test.runIf(process.getuid?.() === 0 && process.seteuid)(
    'needs search permission on its directories, not to read them',
    async () => {
      const path = join(deep, 'vm.sock')
      await serve(path)
      chmodSync(root, 0o711)
      chmodSync(deep, 0o711)
      chmodSync(path, 0o666)
      const tried: unknown[] = []
      process.seteuid!(65534)
      try {
        tried.push(open(path).on('error', (error) => tried.push(error)))
        tried.push(shortNameIn(deep, 'x').close())
        tried.push(caught(() => readdirSync(deep)))
      } finally {
        process.seteuid!(0)
      }
      expect(await read('', () => tried[0] as Socket)).toBe('here')
      expect(tried.slice(1)).toMatchObject([undefined, { code: 'EACCES' }])
      chmodSync(deep, 0o600)
      process.seteuid!(65534)
      try {
        expect(caught(() => open(path))).toMatchObject({ code: 'EACCES' })
      } finally {
        process.seteuid!(0)
      }
    },
  )
})

import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { exclusively, startingKey, takePath } from './unix-path.js'

class Taken extends Error {}
const taken = (what: string) => new Taken(what)
let directory: string
const servers: Server[] = []

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'upcall-path-'))
})
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
  rmSync(directory, { recursive: true, force: true })
})

const listener = () => {
  const server = createServer((socket) => socket.destroy())
  servers.push(server)
  const listen = (name: string) =>
    new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(name, resolve)
    })
  return { server, listen }
}

test('a path is taken with its mode, and removed again', async () => {
  const path = join(directory, 's')
  const remove = await takePath(path, { listen: listener().listen, mode: 0o600, taken })
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(statSync(path).isSocket()).toBe(true)
  await remove()
  expect(existsSync(path)).toBe(false)
})

test('a path whose server lives, or that is not a socket, is refused', async () => {
  const path = join(directory, 's')
  await takePath(path, { listen: listener().listen, taken })
  await expect(takePath(path, { listen: listener().listen, taken })).rejects.toThrow(new Taken('another server listens there'))
  const file = join(directory, 'f')
  writeFileSync(file, '')
  await expect(takePath(file, { listen: listener().listen, taken })).rejects.toThrow(
    new Taken(`${file} exists and is not a socket`),
  )
  expect(statSync(file).isFile()).toBe(true)
})

test('of many that start at once at the path of a dead server, one gets it', async () => {
  const path = join(directory, 's')
  const dead = listener()
  await takePath(path, { listen: dead.listen, taken })
  await new Promise((resolve) => dead.server.close(resolve))
  const results = await Promise.allSettled(Array.from({ length: 8 }, () => takePath(path, { listen: listener().listen, taken })))
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  expect(results.filter((result) => result.status === 'rejected' && !(result.reason instanceof Taken))).toEqual([])
})

test('what another server has placed there meanwhile stays', async () => {
  const path = join(directory, 's')
  const remove = await takePath(path, { listen: listener().listen, taken })
  rmSync(path)
  await takePath(path, { listen: listener().listen, taken })
  await remove()
  expect(existsSync(path)).toBe(true)
})

test('when it fails, nothing is left', async () => {
  const path = join(directory, 's')
  const listen = () => Promise.reject(new Error('no'))
  await expect(takePath(path, { listen, taken })).rejects.toThrow('no')
  expect(existsSync(path)).toBe(false)
})

test.runIf(process.platform === 'linux')('a path of any length is taken, from a dead server too, and removed again', async () => {
  const deep = join(directory, 'd'.repeat(200), 'e'.repeat(200))
  mkdirSync(deep, { recursive: true })
  const path = join(deep, 'n'.repeat(255))
  const descriptors = () => readdirSync('/proc/self/fd').length
  const before = descriptors()
  const dead = listener()
  await takePath(path, { listen: dead.listen, mode: 0o600, taken })
  expect(statSync(path).mode & 0o777).toBe(0o600)
  // The listener's own.
  expect(descriptors()).toBe(before + 1)
  await expect(takePath(path, { listen: listener().listen, taken })).rejects.toThrow(new Taken('another server listens there'))
  await new Promise((resolve) => dead.server.close(resolve))
  const remove = await takePath(path, { listen: listener().listen, taken })
  await remove()
  expect(readdirSync(deep)).toEqual([])
  await expect(takePath(`${path}n`, { listen: listener().listen, taken })).rejects.toMatchObject({ code: 'ENAMETOOLONG' })
  expect(readdirSync(deep)).toEqual([])
  for (const server of servers) server.close()
  await expect.poll(descriptors).toBe(before)
})

test.runIf(process.platform === 'linux')('one starter at a time', async () => {
  const key = await startingKey(join(directory, 's'))
  const order: string[] = []
  let second: Promise<void> | undefined
  await exclusively(key, taken, async () => {
    second = exclusively(key, taken, async () => void order.push('second'))
    // The second one has found the lock taken by now, at least once.
    await new Promise((resolve) => setImmediate(resolve))
    order.push('first ends')
  })
  await second
  expect(order).toEqual(['first ends', 'second'])
})

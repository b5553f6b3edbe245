import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { lstatOf, statOf } from './stat.js'

let directory: string
let server: Server
let socket: string

beforeEach(async () => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), 'upcall-stat-')))
  socket = join(directory, 's')
  server = createServer()
  await new Promise<void>((resolve) => server.listen(socket, resolve))
})
afterEach(() => {
  server.close()
  rmSync(directory, { recursive: true, force: true })
})

test.each([['statOf', statOf] as const, ['lstatOf', lstatOf] as const])(
  '%s sees a socket, and require() still resolves symlinks after it',
  (_name, stat) => {
    const put = (path: string) => {
      mkdirSync(join(path, '..'), { recursive: true })
      writeFileSync(path, 'module.exports = __filename')
    }
    put(join(directory, 'store/late/index.js'))
    put(join(directory, 'app/node_modules/early/index.js'))
    symlinkSync(join(directory, 'store/late'), join(directory, 'app/node_modules/late'))
    const required = createRequire(join(directory, 'app/main.js'))
    const load = (name: string): unknown => required(name)
    expect(load('early')).toBe(join(directory, 'app/node_modules/early/index.js'))
    expect(stat(socket)?.isSocket()).toBe(true)
    expect(load('late')).toBe(join(directory, 'store/late/index.js'))
  },
)

test('nothing at a path is undefined', () => {
  expect([statOf(join(directory, 'x')), lstatOf(join(directory, 'x'))]).toEqual([undefined, undefined])
})

import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { LongPathError } from '@upcall/foundation/long-path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { bindServer } from './bind-server.js'
import { connect } from './connect.js'
import { connectError } from './errors.js'
import { listenHybrid } from './hybrid.js'
import { listen } from './listen.js'

let root: string
let deep: string
let path: string
const open: { close(): Promise<void> }[] = []

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'upcall-long-'))
  deep = join(root, 'jail'.repeat(40), 'root'.repeat(40))
  mkdirSync(deep, { recursive: true })
  path = join(deep, `${'v'.repeat(120)}.sock`)
})
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.close()))
  rmSync(root, { recursive: true, force: true })
})

const openDescriptors = () => readdirSync('/proc/self/fd').length

async function say(address: string): Promise<string> {
  const socket = await connect(address, { halfClose: true })
  socket.end('hello')
  let text = ''
  for await (const chunk of socket) text += chunk
  return text
}

describe.runIf(process.platform === 'linux')('a socket whose path has more than 107 bytes', () => {
  it('is listened on and connected to, and shown as it was written', async () => {
    const before = openDescriptors()
    const server = await listen(`unix:${path}`, { mode: 0o600 })
    open.push(server)
    server.on('connection', (socket) => socket.pipe(socket))
    expect(server.address).toEqual({ transport: 'unix', path })
    const socket = await connect(server.address)
    expect(socket.remote).toEqual({ transport: 'unix', path })
    socket.destroy()
    expect(await say(`unix:${path}`)).toBe('hello')
    await expect(listen(`unix:${path}`)).rejects.toMatchObject({ code: 'EADDRINUSE' })
    await server.close()
    expect(readdirSync(deep)).toEqual([])
    await expect.poll(openDescriptors).toBe(before)
  })

  it('is a VMM, and what the guest connects to beside it', async () => {
    const hybrid = await listenHybrid({ path, route: (port) => (port === 52 ? new PassThrough() : undefined) })
    open.push(hybrid)
    expect(await say(`hvsock://${path}:52`)).toBe('hello')
    await expect(connect(`hvsock://${path}:53`)).rejects.toMatchObject({ code: 'ECONNREFUSED', remote: { path, port: 53 } })
    const server = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket))
    open.push(await bindServer(server, `hvsock://${path}:80`))
    expect(server.address()).toBe(`${path}_80`)
    expect(await say(`unix:${path}_80`)).toBe('hello')
  })

  it('fails as any other where there is no socket', async () => {
    const before = openDescriptors()
    await expect(connect(`unix:${path}`)).rejects.toMatchObject({
      code: 'ECONNREFUSED',
      retryable: true,
      cause: { code: 'ENOENT' },
    })
    await expect(connect(`unix:${deep}`)).rejects.toMatchObject({ code: 'ENOTSOCK' })
    await expect(connect(`unix:${deep}/${'n'.repeat(256)}`)).rejects.toThrow(
      'the path, or a name in it, is longer than the file system takes (ENAMETOOLONG). Use a shorter path.',
    )
    await expect(listen(`unix:${deep}/${'n'.repeat(256)}`)).rejects.toThrow(
      'the path, or a name in it, is longer than the file system takes (ENAMETOOLONG). Use a shorter path.',
    )
    await expect(listen(`unix:${deep}/missing/s`)).rejects.toMatchObject({ code: 'ENOENT' })
    expect(openDescriptors()).toBe(before)
  })
})

it('says why a path cannot be connected to on this system', () => {
  const error = connectError(
    { transport: 'unix', path: '/x' },
    new LongPathError('/x', 'the path is too long here', 'Use a shorter path.'),
  )
  expect(error).toMatchObject({ code: 'ENAMETOOLONG', retryable: false, cause: { name: 'LongPathError' } })
  expect(error.message).toBe('connect unix:/x: the path is too long here. Use a shorter path.')
})

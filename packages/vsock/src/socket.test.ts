import { mkdtempSync, rmSync } from 'node:fs'
import { connect as connectHttp2, createServer as createHttp2Server } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FiredClock } from '../testing/fired-clock.js'
import { connect } from './connect.js'
import { listen, type VsockServer } from './listen.js'
import type { ConnectOptions } from './plan.js'
import type { VsockSocket } from './socket.js'

let dir: string
let server: VsockServer

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'vsock-'))
  server = await listen(`unix:${dir}/s`)
})
afterEach(async () => {
  server.closeAllConnections()
  await server.close()
  rmSync(dir, { recursive: true, force: true })
})

/** Both ends of one connection. */
async function pair(options: ConnectOptions): Promise<{ near: VsockSocket; far: VsockSocket }> {
  const accepted = new Promise<VsockSocket>((resolve) => server.once('connection', resolve))
  const near = await connect(`unix:${dir}/s`, options)
  return { near, far: await accepted }
}

const once = (socket: VsockSocket, event: string) => new Promise<unknown>((resolve) => socket.once(event, resolve))

async function text(socket: VsockSocket): Promise<string> {
  let all = ''
  for await (const chunk of socket) all += chunk
  return all
}

async function turns(count = 20): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise(setImmediate)
}

describe('end() with half-close', () => {
  it('is seen at once, and the way back stays open', async () => {
    const { near, far } = await pair({ halfClose: true })
    near.end('question')
    expect(await text(far)).toBe('question')
    near.destroy()
  })

  it('lets the peer answer after EOF', async () => {
    const { near, far } = await pair({ halfClose: true })
    let asked = ''
    far.on('data', (chunk) => (asked += chunk)).on('end', () => far.end(`${asked}!`))
    near.end('question')
    expect(await text(near)).toBe('question!')
  })
})

describe('end() without half-close', () => {
  it('flushes, and holds EOF back until the peer has ended: nothing the peer says is lost', async () => {
    const clock = new FiredClock()
    const { near, far } = await pair({ halfClose: false, clock })
    let asked = ''
    let sawEnd = false
    far
      .on('data', (chunk) => {
        asked += chunk
      })
      .on('end', () => {
        sawEnd = true
      })
    const answer = text(near)
    near.end('question')
    await expect.poll(() => asked).toBe('question')
    await turns()
    expect(sawEnd).toBe(false)
    expect(near.writableFinished).toBe(false)
    far.write('a long ')
    await turns()
    far.end('answer')
    expect(await answer).toBe('a long answer')
    await once(far, 'close')
    expect(sawEnd).toBe(true)
    expect(clock.pending).toBe(0)
  })

  it('is immediate if the peer has ended already', async () => {
    const { near, far } = await pair({ halfClose: false, clock: new FiredClock() })
    far.end()
    await once(near.resume(), 'end')
    near.end()
    await once(near, 'finish')
    far.destroy()
  })

  it('fails loudly when the peer stays silent for lingerMs', async () => {
    const clock = new FiredClock()
    const { near } = await pair({ halfClose: false, lingerMs: 250, clock })
    near.end('question')
    await expect.poll(() => clock.pending).toBe(1)
    const error = once(near, 'error')
    clock.fire()
    expect(await error).toMatchObject({ code: 'ETIMEDOUT', op: 'shutdown', remote: { transport: 'unix', path: `${dir}/s` } })
    expect(String(await error)).toMatch(/neither sent nor ended within 250 ms after end\(\).*\. Let the guest end first/)
    expect(clock.pending).toBe(0)
  })

  it('does not count a peer as silent that goes on sending, or whose bytes are still unread', async () => {
    const clock = new FiredClock()
    const { near, far } = await pair({ halfClose: false, clock })
    near.end('question')
    await expect.poll(() => clock.pending).toBe(1)
    far.write('still thinking')
    await expect.poll(() => near.bytesRead).toBe('still thinking'.length)
    // First it has sent, then it waits for its reader: near is not flowing.
    for (let i = 0; i < 3; i++) {
      clock.fire()
      expect(near.destroyed).toBe(false)
      expect(clock.pending).toBe(1)
    }
    expect(String(near.read())).toBe('still thinking')
    const error = once(near, 'error')
    clock.fire()
    expect(await error).toMatchObject({ code: 'ETIMEDOUT' })
  })

  it('does not hold up destroySoon(), before or after end()', async () => {
    for (const endFirst of [false, true]) {
      const clock = new FiredClock()
      const { near, far } = await pair({ halfClose: false, clock })
      const said = text(far)
      near.write('flushed')
      if (endFirst) {
        near.end()
        await turns()
      }
      near.destroySoon()
      await once(near, 'close')
      expect(await said).toBe('flushed')
      expect(clock.pending).toBe(0)
    }
  })

  it('leaves no timer behind when the socket is destroyed', async () => {
    const clock = new FiredClock()
    const { near } = await pair({ halfClose: false, clock })
    near.end()
    await expect.poll(() => clock.pending).toBe(1)
    near.destroy()
    await once(near, 'close')
    expect(clock.pending).toBe(0)
  })
})

it('carries HTTP/2 without half-close', async () => {
  const h2 = createHttp2Server((request, response) => request.resume().on('end', () => response.end(Buffer.alloc(1 << 20))))
  const { near, far } = await pair({ halfClose: false })
  h2.emit('connection', far)
  const session = connectHttp2('http://guest', { createConnection: () => near })
  const request = session.request({ ':method': 'POST' })
  request.end('question')
  let received = 0
  for await (const chunk of request) received += chunk.length
  expect(received).toBe(1 << 20)
  await new Promise<void>((resolve) => session.close(resolve))
})

it.each([true, false])('keeps what net.Socket tells of itself (halfClose: %s)', async (halfClose) => {
  const { near, far } = await pair({ halfClose })
  near.write('12345')
  await once(far, 'data')
  far.write('123')
  await once(near, 'data')
  expect([near.bytesWritten, near.bytesRead, near.pending, near.readyState]).toEqual([5, 3, false, 'open'])
  expect(near.unref().ref().setNoDelay().setKeepAlive()).toBe(near)
  expect(near.address()).toEqual({})
  near.destroy()
  await once(near, 'close')
  expect([near.bytesWritten, near.bytesRead, near.pending]).toEqual([5, 3, true])
})

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { connect } from '../connect.js'
import { createSocket } from '../create-socket.js'
import { listen } from '../listen.js'
import type { VsockSocket } from '../socket.js'
import type { ForwardEnd } from './carry.js'
import { type Forwarder, type ForwardOptions, forward } from './forward.js'

let dir: string
const closers: (() => unknown)[] = []

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'forward-'))
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
  rmSync(dir, { recursive: true })
})

/** As a VMM, which tells its dialer whether there is a guest. */
async function asVmm(
  to: () => VsockSocket,
  options?: ForwardOptions,
): Promise<{ forwarder: Forwarder; end: Promise<ForwardEnd> }> {
  const forwarder = await forward(`hvsock://${dir}/vm:52`, to, { asVmm: true, ...options })
  closers.push(() => forwarder.close())
  return { forwarder, end: once(forwarder, 'closed').then(([, end]) => end as ForwardEnd) }
}

const dialled = () => connect(`hvsock://${dir}/vm:52`)

it('waits for the stream of a function that is still connecting', async () => {
  const target = await listen(`unix:${dir}/guest`)
  closers.push(() => target.close())
  target.on('connection', (socket) => socket.end('hello'))
  const { end } = await asVmm(() => createSocket(target.address, { allowHalfOpen: true }))
  const socket = await dialled()
  expect(String((await once(socket, 'data'))[0])).toBe('hello')
  socket.end()
  expect(await end).toMatchObject({ outcome: 'ok', received: 5 })
})

it('refuses a connection whose stream cannot connect', async () => {
  const { end } = await asVmm(() => createSocket(`unix:${dir}/none`))
  await expect(dialled()).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  expect(await end).toMatchObject({ outcome: 'not-sent', error: { code: 'ECONNREFUSED', subject: `unix:${dir}/none` } })
})

it('refuses a connection whose stream is destroyed while it connects', async () => {
  const { end } = await asVmm(() =>
    createSocket(`unix:${dir}/none`, { retry: true }).setTimeout(1, function (this: VsockSocket) {
      this.destroy()
    }),
  )
  await expect(dialled()).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  expect(await end).toMatchObject({ outcome: 'not-sent', error: { code: 'ECONNRESET', op: 'forward' } })
})

it('gives up a stream that connects for too long, or when the forwarder closes', async () => {
  const clock = new ManualClock()
  const streams: VsockSocket[] = []
  const to = () => {
    const stream = createSocket(`unix:${dir}/none`, { retry: true })
    streams.push(stream)
    return stream
  }
  const { forwarder, end } = await asVmm(to, { clock, timeoutMs: 100 })
  const first = expect(dialled()).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  await expect.poll(() => streams.length, { timeout: 10_000 }).toBe(1)
  clock.advance(100)
  await first
  expect(await end).toMatchObject({ outcome: 'not-sent' })
  expect(streams[0]!.destroyed).toBe(true)

  const second = expect(dialled()).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  await expect.poll(() => streams.length, { timeout: 10_000 }).toBe(2)
  await forwarder.close()
  await second
  expect(streams[1]!.destroyed).toBe(true)
})

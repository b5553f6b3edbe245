import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { connect } from '../connect.js'
import { listen } from '../listen.js'
import type { ForwardEnd } from './carry.js'
import { forward } from './forward.js'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'traffic-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

it('tells what it has carried, while it does and afterwards', async () => {
  await using guest = await listen(`unix:${dir}/guest`, { allowHalfOpen: true })
  guest.on('connection', (socket) => {
    socket.once('data', () => {
      socket.write('you said')
      socket.pipe(socket)
    })
  })
  await using forwarder = await forward(`unix:${dir}/near`, guest.address)
  const ends: ForwardEnd[] = []
  forwarder.on('closed', (_connection, end) => ends.push(end))
  expect(forwarder.traffic).toEqual({ sent: 0, received: 0 })
  const dial = () => connect(`unix:${dir}/near`, { allowHalfOpen: true })
  const [first, second] = [await dial(), await dial()]
  for (const socket of [first, second]) {
    socket.write('hello')
    await once(socket, 'data')
  }
  await expect.poll(() => forwarder.traffic, { timeout: 10_000 }).toEqual({ sent: 10, received: 16 })

  // What has ended is counted once, also at the moment at which it is told.
  let then: unknown
  forwarder.once('closed', () => {
    then = forwarder.traffic
  })
  first.resume().end()
  await expect.poll(() => ends.length, { timeout: 10_000 }).toBe(1)
  expect(then).toEqual({ sent: 10, received: 16 })

  second.resume().end('more')
  await expect.poll(() => ends.length, { timeout: 10_000 }).toBe(2)
  expect(forwarder.traffic).toEqual({ sent: 14, received: 20 })
  expect(ends.map(({ sent }) => sent)).toEqual([5, 9])
})

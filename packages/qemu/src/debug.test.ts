import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { duplexPair } from 'node:stream'
import { expect, it } from 'vitest'
import { QmpClient } from './qmp.js'

it('what a client sends and receives is published', async () => {
  const seen: unknown[] = []
  const onMessage = (message: unknown) => void seen.push(message)
  subscribe('upcall:qemu', onMessage)
  try {
    const [near, far] = duplexPair()
    far.on('data', (chunk: Buffer) => far.write(`${JSON.stringify({ return: {}, id: JSON.parse(chunk.toString()).id })}\n`))
    far.write('{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}}}\n')
    const qmp = await QmpClient.over(near)
    qmp.close()
    expect(seen).toMatchObject([
      { type: 'qmp.received', line: expect.stringContaining('"QMP"') },
      { type: 'qmp.sent', line: expect.stringContaining('"qmp_capabilities"') },
      { type: 'qmp.received', line: expect.stringContaining('"return"') },
      { type: 'qmp.ended', what: 'its owner closed the client' },
    ])
  } finally {
    unsubscribe('upcall:qemu', onMessage)
  }
})

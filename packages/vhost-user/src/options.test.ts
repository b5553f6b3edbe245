import { show } from '@upcall/foundation/show'
import { expect, it } from 'vitest'
import { VhostUserVsock, type VhostUserVsockOptions } from './vhost-user-vsock.js'

const NONE = [Number.NaN, Number.POSITIVE_INFINITY, -1, 1.5, 2 ** 32 + 1, '5']
const make = (options: Partial<Record<keyof VhostUserVsockOptions, unknown>>) =>
  new VhostUserVsock({ socketPath: '/tmp/x', guestCid: 3, ...options } as VhostUserVsockOptions)

// Credit is a u32 on the wire, and a timer takes 2^31 ms for no time at all.
it.each([
  ['guestCid', 3, 0xffff_fffe, [0, 2, 0xffff_ffff]],
  ['maxConnections', 1, 1023, [0, 1024]],
  ['bufferBytes', 4096, 2 ** 30, [0, 4095, 2 ** 30 + 1, 2 ** 32]],
  ['handshakeTimeoutMs', 1, 2 ** 31 - 1, [0, 2 ** 31]],
  ['lingerMs', 1, 2 ** 31 - 1, [0, 2 ** 31]],
] as const)('%s is an integer from %d to %d', (name, min, max, more) => {
  for (const value of [...NONE, ...more])
    expect(() => make({ [name]: value })).toThrow(`${name}: must be an integer from ${min} to ${max}, got ${show(value)}`)
  for (const value of [min, max]) expect(() => make({ [name]: value })).not.toThrow()
})

it('socketPath is the path of a file, of any length', () => {
  for (const socketPath of ['', '/tmp/\0'])
    expect(() => make({ socketPath })).toThrow(/^socketPath: must be a path without a zero byte, got /)
  expect(() => make({ socketPath: undefined })).toThrow('socketPath: must be a path, got undefined')
  expect(() => make({ socketPath: `/tmp/${'x'.repeat(200)}` })).not.toThrow()
})

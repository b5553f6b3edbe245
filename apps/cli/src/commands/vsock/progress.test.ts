import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { describe, expect, test } from 'vitest'
import { type StartOptions, start, upcall } from '../../../testing/harness.js'
import { connect, dir, echo, server, serving } from '../../../testing/peers.js'

const RATE = /\/s/

describe('forward', () => {
  /** One connection that has sent 2 KiB and has them back, after a connection that has ended with 1 KiB. */
  async function forwarding(args: string[], options: StartOptions) {
    await server(`unix:${dir}/guest`, echo)
    const running = await serving(
      [...args, 'vsock', 'forward', `unix:${dir}/near`, `unix:${dir}/guest`, ...flags(options)],
      options,
    )
    const first = await connect(`unix:${dir}/near`)
    first.end(Buffer.alloc(1024)).resume()
    await running.stdout.has(running.stdout.text.includes('{') ? '"disconnect"' : 'gone')
    const second = await connect(`unix:${dir}/near`)
    second.write(Buffer.alloc(2048))
    for (let got = 0; got < 2048; ) got += ((await once(second, 'data')) as [Buffer])[0].length
    return running
  }
  const flags = (options: StartOptions & { flag?: string }) => (options.flag ? [options.flag] : [])

  test('at a terminal: connections, bytes and rate, four times a second, until the end', async () => {
    const clock = new ManualClock()
    const running = await forwarding([], { terminal: true, clock })
    expect(running.stderr.text).not.toMatch(RATE)
    clock.advance(250)
    await running.stderr.has(`unix:${dir}/near: 1 connection, 3.0 KiB sent, 3.0 KiB received, 24.0 KiB/s`)
    running.interrupt('SIGTERM')
    expect(await running.status).toBe(0)
    const { length } = running.stderr.text
    clock.advance(60_000)
    expect(running.stderr.text).toHaveLength(length)
  })

  test('nothing without a terminal, under --json, in CI, or with --no-progress', async () => {
    const clock = new ManualClock()
    const quiet: [string[], StartOptions & { flag?: string }] = [[], { clock }]
    const running = await forwarding(...quiet)
    clock.advance(60_000)
    expect(running.stderr.text).toBe('')
    for (const [args, options] of [
      [['--json'], { terminal: true }],
      [[], { terminal: true, env: { CI: '1' } }],
      [[], { terminal: true, flag: '--no-progress' }],
    ] as [string[], StartOptions & { flag?: string }][]) {
      const near = `unix:${dir}/n${args.length}${options.flag ?? ''}${Object.keys(options.env ?? {})}`
      const other = await serving([...args, 'vsock', 'forward', near, `unix:${dir}/guest`, ...flags(options)], {
        ...options,
        clock,
      })
      clock.advance(60_000)
      expect(other.stderr.text).toBe('')
    }
  })

  test('--progress is a line every ten seconds anywhere, JSON under --json', async () => {
    const clock = new ManualClock()
    const options = { clock, flag: '--progress' }
    const running = await forwarding(['--json'], options)
    clock.advance(9_999)
    expect(running.stderr.text).toBe('')
    clock.advance(1)
    expect(running.stderr.json).toEqual([
      {
        event: 'progress',
        subject: `unix:${dir}/near`,
        connections: 1,
        sent: 3072,
        received: 3072,
        bytesPerSecond: 614,
      },
    ])
  })
})

describe('connect', () => {
  async function connecting(flags: string[], options: StartOptions) {
    await server(`unix:${dir}/s`, echo)
    const stdin = new PassThrough()
    const running = start(['vsock', 'connect', `unix:${dir}/s`, ...flags], { ...options, stdin })
    stdin.write('hello')
    await running.stdout.has('hello')
    return { ...running, stdin }
  }

  test('bytes and rate at a terminal, and not after the end', async () => {
    const clock = new ManualClock()
    const running = await connecting([], { terminal: true, clock })
    clock.advance(250)
    await running.stderr.has(`unix:${dir}/s: 5 B sent, 5 B received, `)
    running.stdin.end()
    expect(await running.status).toBe(0)
    const { length } = running.stderr.text
    clock.advance(60_000)
    expect(running.stderr.text).toHaveLength(length)
  })

  test.each([
    [['--no-progress'], true, ''],
    [[], false, ''],
    [['--progress'], false, '5 B sent, 5 B received, '],
  ])('%j, terminal %j', async (flags, terminal, text) => {
    const clock = new ManualClock()
    const running = await connecting(flags, { terminal, clock })
    clock.advance(10_000)
    if (text === '') expect(running.stderr.text).toBe('')
    else expect(running.stderr.text).toContain(text)
    running.stdin.end()
    expect(await running.status).toBe(0)
  })
})

test.each([
  ['connect', `unix+seq:/nowhere`],
  ['forward', `unix+seq:/nowhere`, `unix+seq:/there`],
])('%s: --progress is not for messages', async (...words) => {
  const { status, stderr } = await upcall(['vsock', ...words, '--progress'])
  expect([status, stderr.text]).toEqual([2, expect.stringContaining('--progress: is for streams')])
})

import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { describe, expect, test } from 'vitest'
import { opName } from '../testing/fake-guest.js'
import { binding, connected, heard, running, say } from '../testing/scene.js'
import { Op, SHUTDOWN_BOTH, SHUTDOWN_SEND } from './machine/packet.js'

describe.runIf(binding !== undefined)('streams', () => {
  test('bytes both ways, and the guest is interrupted for them', async () => {
    const { device, vmm } = await running()
    const { stream, request } = await connected(device, vmm)
    expect([stream.guestPort, stream.hostPort]).toEqual([5000, request.header.sourcePort])
    expect(stream.hostPort).toBeGreaterThanOrEqual(2 ** 30)
    const interrupted = vmm.interrupt(0)
    stream.write('ping')
    await interrupted
    const [packet] = await heard(vmm)
    expect(Buffer.from(packet!.payload).toString()).toBe('ping')
    say(vmm, request, Op.RW, {}, Buffer.from('pong'))
    expect(String((await once(stream, 'data'))[0])).toBe('pong')
  })

  test('there is no listener', async () => {
    const { device, vmm } = await running()
    const connecting = device.connect(5000)
    const refused = expect(connecting).rejects.toMatchObject({ code: 'ECONNREFUSED', retryable: true })
    const [request] = await heard(vmm)
    say(vmm, request!, Op.RST)
    await refused
    expect(device.connections).toBe(0)
  })

  test.each<[string, number, object]>([
    ['closes', Op.SHUTDOWN, { flags: SHUTDOWN_BOTH }],
    ['resets', Op.RST, {}],
  ])('a guest that accepts, speaks and %s at once was there all the same', async (_, op, fields) => {
    const { device, vmm } = await running()
    const connecting = device.connect(5000)
    const [request] = await heard(vmm)
    const { sourcePort } = request!.header
    vmm.guest.send({ op: Op.RESPONSE, sourcePort: 5000, destinationPort: sourcePort })
    vmm.guest.send({ op: Op.RW, sourcePort: 5000, destinationPort: sourcePort }, Buffer.from('bye'))
    say(vmm, request!, op, fields)
    let text = ''
    const reading = (async () => {
      for await (const chunk of await connecting) text += chunk
    })()
    if (op === Op.RST) await expect(reading).rejects.toMatchObject({ code: 'ECONNRESET' })
    else await reading
    expect(text).toBe('bye')
    expect(device.connections).toBe(0)
  })

  test('a guest that accepts and closes without a word: a stream that ends', async () => {
    const { device, vmm } = await running()
    const connecting = device.connect(5000)
    const [request] = await heard(vmm)
    vmm.guest.send({ op: Op.RESPONSE, sourcePort: 5000, destinationPort: request!.header.sourcePort })
    say(vmm, request!, Op.SHUTDOWN, { flags: SHUTDOWN_BOTH })
    expect(await (await connecting).toArray()).toEqual([])
    expect(device.connections).toBe(0)
  })

  test('a signal ends a connect, with its reason as the cause', async () => {
    const { device, vmm } = await running()
    const given = new AbortController()
    const connecting = device.connect(5000, { signal: given.signal })
    const aborted = expect(connecting).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
    await heard(vmm)
    given.abort('enough')
    await aborted
    expect((await heard(vmm)).map(opName)).toEqual(['RST'])
  })

  test('half-close: end() leaves the way back open', async () => {
    const { device, vmm } = await running()
    const { stream, request } = await connected(device, vmm)
    stream.end('question')
    const packets = [...(await heard(vmm))]
    while (packets.length < 2) packets.push(...(await heard(vmm)))
    expect(packets.map(opName)).toEqual(['RW', 'SHUTDOWN'])
    expect(packets[1]!.header.flags).toBe(SHUTDOWN_SEND)
    say(vmm, request, Op.RW, {}, Buffer.from('answer'))
    say(vmm, request, Op.SHUTDOWN, { flags: SHUTDOWN_BOTH })
    const chunks = await stream.toArray()
    expect(Buffer.concat(chunks).toString()).toBe('answer')
    expect((await heard(vmm)).map(opName)).toEqual(['RST'])
    expect(device.connections).toBe(0)
  })

  test('a reader that does not read holds the guest back, and gets all in the end', async () => {
    const { device, vmm } = await running({ bufferBytes: 65536 })
    const { stream, request } = await connected(device, vmm)
    const chunk = Buffer.alloc(4096, 'x')
    for (let i = 0; i < 16; i++) {
      say(vmm, request, Op.RW, {}, chunk)
      await vmm.sync()
      vmm.guest.tx.takeUsed()
    }
    expect(vmm.guest.received()).toEqual([])
    let taken = 0
    stream.on('data', (bytes: Buffer) => {
      taken += bytes.length
    })
    const packets = await heard(vmm)
    expect(packets.at(-1)!.header).toMatchObject({ op: Op.CREDIT_UPDATE, bufferAllocation: 65536 })
    expect(taken).toBe(65536)
  })

  test.each([
    ['the window of the guest', 262144, 8192],
    ['bufferBytes', 8192, 262144],
  ])(
    'a reader gets as many bytes at once as it asks for, though they are more than %s',
    async (_, bufferBytes, bufferAllocation) => {
      const clock = new ManualClock()
      const { device, vmm } = await running({ bufferBytes, clock })
      const { stream, request } = await connected(device, vmm)
      const said = Buffer.from(Array.from({ length: 20_000 }, (_, i) => i % 251))
      const deadline = performance.now() + 5_000
      let [sent, taken] = [0, 0]
      let got: Buffer | null = null
      while (got === null && performance.now() < deadline) {
        // Linux sends as much as the smaller of both buffers lets it.
        const payload = said.subarray(sent, sent + Math.min(4096, 8192 - (sent - taken)))
        if (payload.length > 0) say(vmm, request, Op.RW, { bufferAllocation }, payload)
        sent += payload.length
        await turn()
        got = stream.read(20_000) as Buffer | null
        clock.advance(10)
        await turn()
        vmm.guest.tx.takeUsed()
        taken = vmm.guest.received().at(-1)?.header.forwardCount ?? taken
      }
      expect(got?.equals(said)).toBe(true)
      // What it did not ask for is held back as ever.
      for (let i = 0; i < 2; i++) {
        say(vmm, request, Op.RW, { bufferAllocation }, Buffer.alloc(4096))
        clock.advance(50)
        await vmm.sync()
      }
      expect(device.snapshot().connections[0]!.host).toMatchObject({ received: 28_192, taken: 20_000 })
    },
  )

  test('what is put back with unshift() is taken once', async () => {
    const { device, vmm } = await running({ clock: new ManualClock() })
    const { stream, request } = await connected(device, vmm)
    say(vmm, request, Op.RW, {}, Buffer.from('head body'))
    await once(stream, 'readable')
    expect(String(stream.read())).toBe('head body')
    stream.unshift(Buffer.from(' body'))
    say(vmm, request, Op.RW, {}, Buffer.from(' tail'))
    await vmm.sync()
    expect(`${stream.read()}${stream.read()}`).toBe(' body tail')
    stream.write('x')
    const [packet] = await heard(vmm)
    expect(packet!.header).toMatchObject({ op: Op.RW, forwardCount: 14 })
  })

  test('small packets without a reader cost their bytes, not an object each', async () => {
    const { device, vmm } = await running({ clock: new ManualClock() })
    const { stream, request } = await connected(device, vmm)
    for (let i = 0; i < 5_000; i++) {
      say(vmm, request, Op.RW, {}, Uint8Array.of(i & 0xff))
      if (i === 0) {
        // A reader looked, and then went away.
        await once(stream, 'readable')
        stream.read(0)
      }
      await vmm.sync()
      vmm.guest.tx.takeUsed()
    }
    await vmm.sync()
    const chunks: Buffer[] = []
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    say(vmm, request, Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    await once(stream, 'end')
    expect(Buffer.concat(chunks)).toEqual(Buffer.from(Array.from({ length: 5_000 }, (_, i) => i & 0xff)))
    expect(chunks.length).toBeLessThan(10)
  })

  test('a reader who waits for a number of bytes gets them, in whatever pieces they come', async () => {
    const { device, vmm } = await running()
    const { stream, request } = await connected(device, vmm)
    const reading = new Promise<Buffer>((resolve) => {
      stream.on('readable', () => {
        const chunk = stream.read(50) as Buffer | null
        if (chunk !== null) resolve(chunk)
      })
    })
    for (let i = 0; i < 50; i++) {
      say(vmm, request, Op.RW, {}, Uint8Array.of(i))
      await vmm.sync()
      vmm.guest.tx.takeUsed()
    }
    expect([...(await reading)]).toEqual(Array.from({ length: 50 }, (_, i) => i))
  })

  test('and so does a reader that looks how much is there, and asks for nothing before it is enough', async () => {
    const clock = new ManualClock()
    const { device, vmm } = await running({ clock })
    const { stream, request } = await connected(device, vmm)
    const read: number[][] = []
    stream.on('readable', () => {
      while (stream.readableLength >= 10) read.push([...(stream.read(10) as Buffer)])
    })
    for (let i = 0; i < 20; i++) {
      say(vmm, request, Op.RW, {}, Uint8Array.of(i))
      await vmm.sync()
      await turn()
      vmm.guest.tx.takeUsed()
      clock.advance(20)
      await turn()
    }
    expect(read.flat()).toEqual(Array.from({ length: 20 }, (_, i) => i))
    say(vmm, request, Op.RW, {}, Uint8Array.of(20))
    await vmm.sync()
    say(vmm, request, Op.RW, {}, Uint8Array.of(21))
    await vmm.sync()
    const { pending: timers } = clock
    stream.destroy()
    expect(clock.pending).toBe(timers - 1)
  })

  test('what waits for a reader is held back the longer the more pieces wait before it', async () => {
    const clock = new ManualClock()
    const { device, vmm } = await running({ clock })
    const { stream, request } = await connected(device, vmm)
    stream.on('readable', () => {})
    for (let ms = 0; ms < 10_000; ms++) {
      say(vmm, request, Op.RW, {}, Uint8Array.of(1))
      if (ms % 20 === 0) await vmm.sync()
      vmm.guest.tx.takeUsed()
      clock.advance(1)
    }
    await vmm.sync()
    stream.removeAllListeners('readable')
    const chunks: Buffer[] = []
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    say(vmm, request, Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    await once(stream, 'end')
    expect(Buffer.concat(chunks)).toHaveLength(10_000)
    // Each of at least 20 ms, and of one more for each that is there.
    expect(chunks.length).toBeGreaterThan(50)
    expect(chunks.length).toBeLessThan(200)
  })

  test('what the guest sent before a reset comes before the error', async () => {
    const { device, vmm } = await running()
    const { stream, request } = await connected(device, vmm)
    say(vmm, request, Op.RW, {}, Buffer.from('last words'))
    say(vmm, request, Op.RST)
    await vmm.sync()
    const chunks: Buffer[] = []
    await expect(
      (async () => {
        for await (const chunk of stream) chunks.push(chunk)
      })(),
    ).rejects.toMatchObject({ code: 'ECONNRESET' })
    expect(Buffer.concat(chunks).toString()).toBe('last words')
  })

  test('destroy() is an orderly end, destroy(error) a reset', async () => {
    const { device, vmm } = await running()
    const one = await connected(device, vmm)
    one.stream.destroy()
    expect((await heard(vmm)).map(opName)).toEqual(['SHUTDOWN'])
    const two = await connected(device, vmm)
    two.stream.on('error', () => {}).destroy(new Error('no'))
    expect((await heard(vmm)).map(opName)).toEqual(['RST'])
  })

  test('a listener that throws does not hold up the others', async () => {
    const { device, vmm } = await running()
    const bad = await connected(device, vmm)
    const good = await connected(device, vmm)
    bad.stream.on('data', () => {
      throw new Error('listener')
    })
    const data = once(good.stream, 'data')
    const uncaught = process.rawListeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    const thrown = once(process, 'uncaughtException')
    vmm.guest.send({ op: Op.RW, sourcePort: 5000, destinationPort: bad.stream.hostPort }, Buffer.from('x'))
    say(vmm, good.request, Op.RW, {}, Buffer.from('y'))
    expect(String((await data)[0])).toBe('y')
    expect((await thrown)[0]).toMatchObject({ message: 'listener' })
    for (const listener of uncaught) process.on('uncaughtException', listener as () => void)
    expect(device.state).toBe('running')
  })
})

describe.runIf(binding !== undefined)('a stream that one of its own listeners destroys', () => {
  test('takes what came once, and still delivers what it was given', async () => {
    const { device, vmm } = await running()
    const { stream, request } = await connected(device, vmm)
    stream.on('data', () => {
      stream.end(Buffer.alloc(80_000))
      stream.destroy()
    })
    say(vmm, request, Op.RW, {}, Buffer.alloc(4_000))
    await vmm.sync()
    expect(device.snapshot().connections).toMatchObject([{ host: { received: 4_000, taken: 4_000 } }])
    // What was on its way from the guest breaks no rule.
    say(vmm, request, Op.RW, {}, Buffer.alloc(1_000))
    await vmm.sync()
    expect(device.snapshot().connections).toMatchObject([{ state: 'open', host: { received: 5_000, taken: 5_000 } }])
  })
})

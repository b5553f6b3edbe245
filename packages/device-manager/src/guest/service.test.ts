import { Duplex } from 'node:stream'
import { UpcallServer } from '@upcall/server'
import { encodeRequest, MESSAGE_SIZE, WireError } from '@upcall/wire'
import { describe, expect, onTestFinished, test } from 'vitest'
import { deviceManagerGuest, type GuestBackend, simulatedGuest } from './index.js'

const backend: GuestBackend = { arch: 'x86_64', mmio: { add: () => 0, remove: () => 0 } }
const make = (wrong: object, options?: object) => () => deviceManagerGuest({ ...backend, ...wrong } as never, options as never)

describe('a backend is checked when it is given', () => {
  test.each<[object, string]>([
    [{ arch: undefined }, "arch: must be 'x86_64' or 'aarch64', got undefined"],
    [{ cpu: true }, 'backend.cpu: must be an object with add and remove, or left out, got true'],
    [{ mmio: { add: () => 0 } }, 'backend.mmio.remove: must be a function, got undefined'],
    [{ pci: { add: 5, remove: () => 0 } }, 'backend.pci.add: must be a function, got 5'],
    [{ available: true }, 'backend.available: must be a function or left out, got true'],
    [{ opened: 5 }, 'backend.opened: must be a function'],
    [{ stopped: false }, 'backend.stopped: must be a function'],
    [{ quirks: 'all' }, 'backend.quirks: must be an object, got "all"'],
    [{ quirks: null }, 'backend.quirks: must be an object, got null'],
    [{ quirks: { tornRequests: 'no' } }, 'backend.quirks.tornRequests: must be true or false, got "no"'],
    [{ quirks: { tornRequest: true } }, 'backend.quirks: the key: must be one of tornRequests'],
  ])('%j', (wrong, message) => {
    expect(make(wrong)).toThrow(message)
  })

  test('so are the options', () => {
    expect(() => deviceManagerGuest(undefined as never)).toThrow('backend: must be a GuestBackend object, got undefined')
    expect(() => deviceManagerGuest(backend, null as never)).toThrow('options: must be an object, got null')
    expect(make({}, { quirks: { tornRequest: true } })).toThrow(
      'quirks: the key: must be one of tornRequests, staleReplyBytes, stalePciResult, wrongMagicSucceeds',
    )
    expect(make({}, { quirks: { tornRequests: 1 } })).toThrow('quirks.tornRequests: must be true or false, got 1')
    expect(make({}, { quirks: { tornRequests: undefined } })).not.toThrow()
    // A simulated guest's own are more than those of the wire.
    expect(make({}, { quirks: simulatedGuest({ arch: 'x86_64' }).quirks })).not.toThrow()
  })
})

describe('the simulated guest is told which of its options is wrong', () => {
  test.each<[object, string]>([
    [{ quirks: { fast: true } }, 'quirks: the key: must be one of tornRequests'],
    [{ quirks: { slowAbsentCpu: 'no' } }, 'quirks.slowAbsentCpu: must be true or false, got "no"'],
    [{ quirks: ['slowAbsentCpu'] }, 'quirks: must be an object, got an array of 1'],
    [{ support: { mmoi: false } }, 'support: the key: must be one of cpu, mmio, pci'],
    [{ hardware: { hasCpu: () => true } }, 'hardware.hasPci: must be a function, got undefined'],
    [{ booting: 'yes' }, 'booting: must be true or false, got "yes"'],
    [{ mmio: {} }, 'mmio: must be an array of windows'],
    [{ mmio: [{ base: 5, size: 1n, irq: 5 }] }, 'mmio[0].base: must be a bigint from 0 to 2^64 − 1, got 5'],
    [{ mmio: [{ base: 5n, size: 1n }] }, 'mmio[0].irq: must be an integer from 0 to 4294967295, got undefined'],
    [{ pci: [{ bus: 0, devfn: 256 }] }, 'pci[0].devfn: must be an integer from 0 to 255, got 256'],
    [{ uninitialisedResult: 0xaaaaaaaa }, 'uninitialisedResult: must be an integer from'],
  ])('%s', (wrong, message) => {
    expect(() => simulatedGuest({ arch: 'x86_64', ...wrong } as never)).toThrow(message)
  })

  test.each([undefined, null])('%s instead of options', (options) => {
    expect(() => simulatedGuest(options as never)).toThrow('options: must be an object')
  })
})

describe('a backend with a wrong answer ends its connection', () => {
  const window = encodeRequest({ type: 'ADD_MMIO', base: 1n << 30n, size: 4096n, irq: 5 }, 'x86_64')

  test.each<[string, unknown, string]>([
    ['nothing', undefined, 'result: must be an integer'],
    ['NaN', Number.NaN, 'result: must be an integer'],
    ['too great a number', 2 ** 31, 'result: must be an integer'],
    ['a text', '0', 'result: must be an integer'],
    ['a promise of nothing', Promise.resolve(undefined), 'result: must be an integer'],
  ])('%s', async (_what, answer, message) => {
    const server = new UpcallServer({
      services: [deviceManagerGuest({ ...backend, mmio: { add: () => answer as never, remove: () => 0 } })],
    })
    onTestFinished(() => server.close())
    const stream = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() })
    const connection = server.accept(stream)
    stream.push(Buffer.concat([Buffer.from('d'), window]))
    const error = expect.objectContaining({ name: WireError.name, message: expect.stringContaining(message) })
    await expect(connection.closed).resolves.toEqual({ reason: 'service-error', error })
  })

  test('a promise of another kind is a promise', async () => {
    // biome-ignore lint/suspicious/noThenProperty: it is what the test is about
    const later = { then: (resolve: (result: number) => void) => resolve(0) }
    const server = new UpcallServer({
      services: [deviceManagerGuest({ ...backend, mmio: { add: () => later as never, remove: () => 0 } })],
    })
    onTestFinished(() => server.close())
    const written: Uint8Array[] = []
    const stream = new Duplex({
      read() {},
      write(chunk, _encoding, done) {
        written.push(chunk)
        done()
      },
    })
    server.accept(stream)
    stream.push(Buffer.concat([Buffer.from('d'), window]))
    await expect.poll(() => written.map(({ length }) => length), { timeout: 10_000 }).toEqual([MESSAGE_SIZE, MESSAGE_SIZE])
  })
})

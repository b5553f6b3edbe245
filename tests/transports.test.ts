import {
  type ComplianceTransport,
  guestInitiatedTransport,
  hybridTransport,
  memoryTransport,
  transportCompliance,
  unixTransport,
} from '@upcall/testkit'
import { afterAll, describe, expect, it } from 'vitest'

const transports = [
  memoryTransport(),
  await unixTransport(),
  await hybridTransport(),
  await hybridTransport({ halfClose: false }),
  await guestInitiatedTransport(),
]

describe.each(transports.map((transport) => [transport.name, transport] as const))('%s', (_name, transport) => {
  // The element type differs from transport to transport; the suite only hands addresses back to the one they came from.
  for (const { name, run } of transportCompliance(transport as ComplianceTransport<unknown>)) {
    it(name, ({ signal }) => run(signal))
  }

  afterAll(() => transport.dispose?.())
})

it('the suite leaves out what a transport cannot do, and only that', () => {
  const names = (transport: ComplianceTransport<number>) => transportCompliance(transport).map(({ name }) => name)
  const memory = memoryTransport()
  const all = names({ ...memory, features: { halfClose: true, netSocket: true, descriptors: true } })
  const least = names({ ...memory, mute: undefined, features: { halfClose: false, netSocket: false, descriptors: false } })
  expect(all.filter((name) => !least.includes(name))).toEqual([
    'an abort while connecting fails with ABORTED and its reason',
    'connecting ends with its deadline: ETIMEDOUT, and not before',
    'half-close by the connecting end: the accepting end reads to EOF and then answers at length',
    'half-close by the accepting end: the connecting end reads to EOF and then answers at length',
    'a connection keeps the process alive until unref(), and again after ref()',
    'connections that are over, refused or aborted leave nothing open',
  ])
})

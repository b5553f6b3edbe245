import { Duplex } from 'node:stream'
import { UpcallClient } from '@upcall/client'
import { deviceManagerProtocol } from '@upcall/device-manager'
import { encodeConnect, encodeReply } from '@upcall/wire'
import { expect, test } from 'vitest'
import { type ClientEvent, traceClient } from './client.js'

/** A guest that refuses everything, and leaves when it is asked for the last time. */
function refusing(requests: number): Duplex {
  let left = requests
  return new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      if (chunk.length === 1) this.push(encodeConnect())
      else if (left-- > 0) this.push(encodeReply({ type: 'ADD_PCI', result: -19 }, 'x86_64'))
      else this.push(null)
      done()
    },
  })
}

function shape(event: ClientEvent): string {
  const { conn, type } = event
  if (type === 'message') return `#${conn} ${event.title}${event.rttMs === undefined ? '' : ' timed'}`
  return `#${conn} ${type === 'state' ? `${event.previous} → ${event.state}` : type}`
}

test('a client is followed from its first connection to its end, with its own states', async () => {
  let connections = 0
  const client = new UpcallClient({
    service: deviceManagerProtocol({ arch: 'x86_64' }),
    dial: async () => refusing(++connections === 1 ? 1 : 9),
  })
  const other = new UpcallClient({ service: deviceManagerProtocol({ arch: 'x86_64' }), dial: async () => refusing(1) })
  const events: string[] = []
  const tracing = traceClient(client, (event) => events.push(shape(event)))
  const request = { type: 'ADD_MMIO', base: 0n, size: 1n, irq: 5 } as const
  await client.request({ type: 'ADD_PCI', bus: 0, devfn: 0x28 })
  await expect(client.request(request)).rejects.toMatchObject({ outcome: 'indeterminate' })
  await client.ready()
  await client.close()
  await other.close()
  expect(events).toEqual([
    ...['#1 Due → Dialing', '#1 service', '#1 Dialing → Greeting', '#1 CONNECT  the greeting timed', '#1 Greeting → Busy'],
    ...['#1 ADD_PCI  00:05.0', '#1 ADD_PCI  -19 ENODEV timed', '#1 Busy → Ready', '#1 ADD_MMIO 0x0+0x1 irq 5', '#1 Ready → Busy'],
    ...['#1 end', '#1 end', '#1 Busy → Due', '#2 Due → Dialing', '#2 service', '#2 Dialing → Greeting'],
    ...['#2 CONNECT  the greeting timed', '#2 Greeting → Ready', '#2 end', '#2 end', '#2 Ready → Closed'],
  ])
  tracing[Symbol.dispose]()
})

import { faultsIn } from './faults-in.mjs'

const metrics = faultsIn('metrics')
const device = faultsIn('vhost-user')
const client = faultsIn('client', ['metrics'])

export default [
  metrics('a refused request is a success', 'observe/requests.ts', 'if (!effect.failed) return', 'return'),
  metrics('a failure has no errno', 'observe/requests.ts', 'errnoName(result)', "'GUEST_ERROR'"),
  metrics(
    'the first failure is on no dashboard',
    'observe/observation.ts',
    "this.#recorder.count('requests', { op, outcome }, 0)",
    'void outcome',
  ),
  metrics('requests that have ended are kept', 'observe/requests.ts', '      pending.delete(effect.id)\n', ''),
  metrics('an address may be a label', 'observe/label.ts', '|| !WORD.test(value)', ''),
  metrics('a label grows without end', 'observe/label.ts', 'this.#seen.size >= this.#most', 'false'),
  metrics(
    'a session is kept alive by its gauge',
    'observe/sessions.ts',
    'client: new WeakRef(client), remote }',
    'client: { deref: () => client } as WeakRef<Client>, remote }',
  ),
  metrics('a closed session stays in the gauge', 'observe/sessions.ts', "|| state === 'Closed'", ''),
  metrics(
    'what a closed device has counted is lost',
    'observe/devices.ts',
    'for (const key of KEPT) this.#gone.addAll(key, valuesOf(key, entry))',
    '',
  ),
  metrics(
    'a device that closes is read at the next scrape',
    'observe/devices.ts',
    "    if (device.state === 'closed') this.#refresh()\n",
    '',
  ),
  metrics('a write is of each request with these bytes', 'observe/requests.ts', '        break\n      }', '      }'),
  metrics('a closed device is counted for ever', 'observe/devices.ts', "&& device.state !== 'closed'", ''),
  metrics('an abort is a failed handshake', 'observe/observation.ts', "if (code !== 'ABORTED')", 'if (true)'),
  metrics('the channels are listened to for ever', 'observe/observation.ts', 'unsubscribe(channel, listener)', 'void listener'),
  metrics('gauges of what is gone stay', 'prometheus/collect.ts', '        this.reset()\n', ''),
  metrics('every method is answered', 'prometheus/serve.ts', "request.method !== 'GET' && request.method !== 'HEAD'", 'false'),
  metrics('close() waits for its clients', 'prometheus/serve.ts', '      this.#server.closeAllConnections()\n', ''),
  metrics('a port alone is on all interfaces', 'prometheus/address.ts', "= '127.0.0.1'", "= '0.0.0.0'"),
  metrics('an attempt to connect is a part of whatever was under way', 'opentelemetry/spans.ts', ', root: true', ''),
  metrics('a span of a failed request is unset', 'opentelemetry/spans.ts', 'if (code !== undefined)', 'if (false)'),
  metrics('callbacks outlive the disposal', 'opentelemetry/meters.ts', 'instrument.removeCallback(callback)', 'void callback'),
  device('a stall is counted each time the guest is asked', 'machine/connection.ts', '!this.#guestCredit.asked && ', ''),
  device('packets of other guests are not counted as dropped', 'machine/device.ts', '      this.#tally.dropped++\n', ''),
  device('headers count as payload', 'machine/device.ts', 'length - PACKET_HEADER_SIZE)\n  }', 'length)\n  }'),
  client('the channel does not say that the guest refused', 'machine/table.ts', 'reply, failed })', 'reply, failed: false })'),
]

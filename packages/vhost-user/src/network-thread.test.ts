import { expect, test } from 'vitest'
import { VsockNetwork } from './network.js'
import { startNetworkThread } from './network-thread.js'

const script = new URL('file:///nonexistent/guest.js')

test.each([
  [undefined, { data: 1 }, 'network: must be a VsockNetwork, got undefined'],
  [{ link: () => {} }, { data: 1 }, 'network: must be a VsockNetwork, got an object'],
  [new VsockNetwork(), undefined, 'options: must be an object, got undefined'],
  [new VsockNetwork(), null, 'options: must be an object, got null'],
])('no thread begins with %o and %o', (network, options, message) => {
  expect(() => startNetworkThread(network as never, script, options as never)).toThrow(message)
})

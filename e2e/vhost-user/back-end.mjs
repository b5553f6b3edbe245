// A back end as a process of its own, to be killed: the device and the hybrid socket in front of it. Says `listening` when it is.
//
//   node back-end.mjs <vhost-user socket> <hybrid socket> <guest CID>
import { createVsockDevice } from '@upcall/vhost-user'
import { connect, listenHybrid } from '@upcall/vsock'

const [socketPath, path, guestCid] = process.argv.slice(2)
const device = await createVsockDevice({
  ...{ socketPath, guestCid: Number(guestCid), handshakeTimeoutMs: 20_000 },
  onConnection: (port, { signal }) => connect({ transport: 'unix', path: `${path}_${port}` }, { signal }),
})
await listenHybrid({ path, route: (port, { signal }) => device.connect(port, { signal }) })
console.log('listening')

// The device and its hybrid socket, as a program of its own: `device-child.mjs <vhost-user socket> <hybrid socket> <guest's CID>`. It ends when
// its parent disconnects.
import { createVsockDevice } from '@upcall/vhost-user'
import { listenHybrid } from '@upcall/vsock'

const [socketPath, hybridPath, guestCid] = process.argv.slice(2)
const device = await createVsockDevice({ socketPath, guestCid: Number(guestCid) })
const route = (port, { signal }) => device.connect(port, { signal })
const hybrid = await listenHybrid({ path: hybridPath, route })
process.once('disconnect', () => void stop())
process.send('ready')

async function stop() {
  await hybrid.close()
  await device.close()
  // What a profiler has collected is written at the end.
  process.exit()
}

// A back end as a process of its own, to be killed. Says `listening` when it does.
//
//   node back-end.mjs <vhost-user socket> <hybrid socket> <guest CID>
import { serveDevice } from './scene.mjs'

const [socketPath, hybridPath, guestCid] = process.argv.slice(2)
await serveDevice({ socketPath, hybridPath, guestCid: Number(guestCid) })
console.log('listening')

// A network in a worker thread: its devices, and its end of a link to another network.
import { once } from 'node:events'
import { parentPort, workerData } from 'node:worker_threads'
import { createVsockNetwork } from '@upcall/vhost-user'

const network = await createVsockNetwork({ devices: workerData.devices })
network.on('refused', (refused) => parentPort.postMessage({ refused }))
network.link(workerData.link)
parentPort.postMessage({ ready: true })
await once(parentPort, 'message')
await network.close()
parentPort.close()

import { parentPort } from 'node:worker_threads'
import { threadNetwork } from '../src/network-thread.js'
import type { VhostUserVsockOptions } from '../src/vhost-user-vsock.js'

// A thread with a network of one device.

const { network, data } = threadNetwork<VhostUserVsockOptions>()
await network.add(data)
parentPort!.postMessage('listening')

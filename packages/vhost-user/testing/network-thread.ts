import { type MessagePort, workerData } from 'node:worker_threads'
import { createVsockNetwork } from '../src/network.js'

// A thread with a network of one device, linked to the network of the thread that has begun it.

const { port, socketPath, guestCid } = workerData as { port: MessagePort; socketPath: string; guestCid: number }
const network = await createVsockNetwork({ devices: [{ socketPath, guestCid }] })
network.link(port)

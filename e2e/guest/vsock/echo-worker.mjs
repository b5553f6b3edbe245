import { parentPort } from 'node:worker_threads'
import { listen } from '@upcall/vsock'

const server = await listen('vsock://local:any')
server.on('connection', (socket) => socket.on('error', () => {}).pipe(socket))
parentPort.postMessage(server.address)

// Accepts and never reads. Argument: port.
import { listen } from '@upcall/vsock'

const server = await listen(`vsock://local:${process.argv[2]}`)
server.on('connection', (socket) => socket.pause())
console.log('listening')

import { connect, listen } from '@upcall/vsock'

const server = await listen('vsock://local:any')
server.on('connection', (socket) => socket.unref())
const client = await connect(server.address)
client.unref()
server.unref()
console.log('leaving')

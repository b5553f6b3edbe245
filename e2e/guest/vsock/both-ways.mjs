// The other end of much each way: sends it, takes it, tells both checksums. Arguments: port, bytes.
import { once } from 'node:events'
import { listen } from '@upcall/vsock'
import { bothWays } from './patterned.mjs'

const server = await listen(`vsock://local:${process.argv[2]}`, { allowHalfOpen: true })
console.log('listening')
const [socket] = await once(server, 'connection')
process.send(await bothWays(socket, 'towards the client ', Number(process.argv[3])))
await server.close()

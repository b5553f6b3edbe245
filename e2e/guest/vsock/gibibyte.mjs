// The other end of a gibibyte each way: sends one, takes one, tells both checksums. Argument: port.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { listen } from '@upcall/vsock'
import { patterned } from './patterned.mjs'

const server = await listen(`vsock://local:${process.argv[2]}`)
console.log('listening')
const [socket] = await once(server, 'connection')
const hash = createHash('md5')
let length = 0
socket.on('data', (chunk) => {
  hash.update(chunk)
  length += chunk.length
})
const ended = once(socket, 'end')
const sent = await patterned(socket, 'towards the client ')
await ended
process.send({ length, received: hash.digest('hex'), sent })
await server.close()

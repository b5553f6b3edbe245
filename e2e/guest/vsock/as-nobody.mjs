// Runs without any rights and tells what it may do.
import { connect, listen, localCid } from '@upcall/vsock'

const tell = async (what, done) => {
  try {
    await what()
    return done
  } catch ({ code, message, cause }) {
    return { code, message, errno: cause?.code }
  }
}
const privileged = await tell(() => listen('vsock://local:1023'), 'listening')
let server
const free = await tell(async () => {
  server = await listen('vsock://local:any')
}, 'listening')
const connected = await tell(async () => (await connect(server.address)).destroy(), 'connected')
const cid = await tell(() => localCid(), 'known')
await server?.close()
console.log(JSON.stringify({ privileged, free, connected, cid }))

// Listens and never accepts, which the library does not do. Arguments: the addon, port, backlog.
import { once } from 'node:events'

const [path, port, backlog] = process.argv.slice(2)
const addon = { exports: {} }
process.dlopen(addon, path)
const binding = addon.exports

const sockaddr = new DataView(new ArrayBuffer(16))
sockaddr.setUint16(0, binding.AF_VSOCK, true)
sockaddr.setUint32(4, Number(port), true)
sockaddr.setUint32(8, 1, true)
const listener = binding.socket(binding.AF_VSOCK)
binding.bind(listener, new Uint8Array(sockaddr.buffer))
binding.listen(listener, Number(backlog))
console.log('listening')
await once(process.stdin.resume(), 'end')
binding.close(listener)

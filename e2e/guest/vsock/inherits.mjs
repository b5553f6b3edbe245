// inherits.mjs <fd> [echo]: takes over the connection behind a descriptor, and echoes, or says in JSON what it found.
import { once } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import { createSocket } from '@upcall/vsock'

const fd = Number(process.argv[2])
const before = openSockets()
const socket = createSocket({ fd }, { allowHalfOpen: true })
if (process.argv[3] === 'echo') socket.pipe(socket)
else {
  socket.end('hello')
  let echo = ''
  for await (const chunk of socket) echo += chunk
  if (!socket.closed) await once(socket, 'close')
  const closed = before.filter((name) => !openSockets().includes(name))
  const opened = openSockets().filter((name) => !before.includes(name))
  console.log(JSON.stringify({ local: socket.local, remote: socket.remote, echo, closed, opened }))
}

function openSockets() {
  return readdirSync('/proc/self/fd').flatMap((number) => {
    try {
      const name = readlinkSync(`/proc/self/fd/${number}`)
      return name.startsWith('socket:') ? [name] : []
    } catch {
      // Closed since it was listed.
      return []
    }
  })
}

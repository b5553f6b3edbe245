import { once } from 'node:events'

/** 1 KiB there and back, one at a time; microseconds each. */
export async function pingPong(socket, rounds) {
  const message = Buffer.alloc(1024)
  const start = performance.now()
  for (let i = 0; i < rounds; i++) {
    socket.write(message)
    for (let got = 0; got < 1024; ) {
      const chunk = socket.read()
      if (chunk === null) await once(socket, 'readable')
      else got += chunk.length
    }
  }
  return ((performance.now() - start) / rounds) * 1000
}

/** MB/s through the socket into an echo and back. */
export async function bulk(socket, bytes) {
  const block = Buffer.alloc(64 * 1024)
  const start = performance.now()
  let received = 0
  const done = new Promise((resolve) => {
    socket.on('data', (chunk) => {
      received += chunk.length
      if (received === bytes) resolve()
    })
  })
  for (let sent = 0; sent < bytes; sent += block.length) if (!socket.write(block)) await once(socket, 'drain')
  await done
  return bytes / 1e6 / ((performance.now() - start) / 1000)
}

/** The value below which a share of the sorted values lies; 0.5 for the median. */
export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.round((sorted.length - 1) * share)]
}

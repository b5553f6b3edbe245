// What of @upcall/vsock works in Bun and Deno, which run on other event loops than Node and have a node:net of their own. Node runs it,
// too: a check that fails everywhere is a fault of the check.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { PassThrough } from 'node:stream'
import {
  bindServer,
  connect,
  createConnection,
  createSocket,
  isVsockError,
  listen,
  listenHybrid,
  VsockAgent,
} from '@upcall/vsock'

const LIMIT_MS = 20_000
const base = `${tmpdir()}/upcall-runtime-${process.pid}`
const runtime = globalThis.Bun ? 'Bun' : globalThis.Deno ? 'Deno' : 'Node'

async function textOf(stream) {
  let text = ''
  for await (const chunk of stream) text += chunk
  return text
}

async function get(options) {
  const request = http.get(options)
  const [response] = await once(request, 'response')
  return textOf(response)
}

function failure(promise) {
  return promise.then(
    () => assert.fail('it succeeded'),
    (error) => {
      assert.ok(isVsockError(error), String(error))
      return error
    },
  )
}

/** An echo over plain sockets, an HTTP server, and a VMM with the first on port 219 and the second on port 80. */
const echo = await listen(`unix:${base}.echo`, { allowHalfOpen: true })
echo.on('connection', (socket) => socket.pipe(socket))
const guest = http.createServer((request, response) => response.end(`asked for ${request.url}`))
await once(guest.listen(`${base}.http`), 'listening')
const vmm = await listenHybrid({
  path: base,
  route: (port) => {
    if (port === 219) return new PassThrough()
    return port === 80 ? connect(`unix:${base}.http`, { allowHalfOpen: true }) : undefined
  },
})

const transports = { unix: `unix:${base}.echo`, hvsock: `hvsock://${base}:219` }
const ways = { halfClose: true, allowHalfOpen: true }
const checks = {}
for (const [name, address] of Object.entries(transports)) {
  checks[`connect ${name}`] = async () => {
    const socket = await connect(address)
    socket.write('hello')
    assert.equal(String((await once(socket, 'data'))[0]), 'hello')
    socket.destroy()
    await once(socket, 'close')
  }
  checks[`createSocket ${name}: written before it is connected`] = async () => {
    const socket = createSocket(address, ways)
    assert.equal(socket.connecting, true)
    socket.end('hello')
    assert.equal(await textOf(socket), 'hello')
  }
  checks[`createSocket ${name}: 5 MB there and back`] = async () => {
    const socket = createSocket(address, ways)
    socket.end(Buffer.alloc(5_000_000))
    let bytes = 0
    for await (const chunk of socket) bytes += chunk.length
    assert.equal(bytes, 5_000_000)
  }
  checks[`createSocket ${name}: destroyed while it connects`] = async () => {
    const socket = createSocket(address)
    socket.destroy()
    await once(socket, 'close')
  }
}

Object.assign(checks, {
  "the peer's end closes the socket": async () => {
    const server = await listen(`unix:${base}.end`)
    server.once('connection', (socket) => socket.end('bye'))
    const socket = createSocket(server.address)
    const closed = once(socket, 'close')
    assert.equal(String((await once(socket, 'data'))[0]), 'bye')
    await closed
    await server.close()
  },
  'a missing socket, a refused port, an abort': async () => {
    assert.equal((await failure(connect(`unix:${base}.none`))).cause.code, 'ENOENT')
    assert.equal((await failure(connect(`hvsock://${base}:5`))).code, 'ECONNREFUSED')
    const signal = AbortSignal.timeout(50)
    assert.equal((await failure(connect(`unix:${base}.none`, { retry: true, signal }))).code, 'ABORTED')
  },
  VsockAgent: async () => {
    const agent = new VsockAgent(`hvsock://${base}:80`, { keepAlive: true })
    for (const path of ['/a', '/b']) assert.equal(await get({ agent, path }), `asked for ${path}`)
    agent.destroy()
  },
  'bindServer: a net.Server': async () => {
    const server = net.createServer((socket) => socket.end('bound'))
    const { address, close } = await bindServer(server, `unix:${base}.net`)
    assert.equal(await textOf(await connect(address)), 'bound')
    await close()
  },
  'bindServer: an http.Server': async () => {
    const server = http.createServer((_request, response) => response.end('bound'))
    // Bun's is not made of a net.Server.
    if (runtime === 'Bun') return assert.rejects(bindServer(server, `unix:${base}.server`), TypeError)
    const { address, close } = await bindServer(server, `unix:${base}.server`)
    assert.equal(await get({ createConnection: createConnection(address) }), 'bound')
    await close()
  },
  'vsock:// is refused in words': async () => {
    if (runtime === 'Node') return
    const error = await failure(listen('vsock://any:any'))
    assert.equal(error.code, 'ENOTSUP')
    assert.match(error.message, new RegExp(`does not work under ${runtime}, .* Run it with Node, or use hvsock://`))
  },
  'close leaves nothing': async () => {
    await vmm.close()
    await echo.close()
    guest.close()
  },
})

let done = 0
for (const [name, check] of Object.entries(checks)) {
  const limit = setTimeout(() => {
    console.error(`${runtime}: ${name}: not done after ${LIMIT_MS} ms`)
    process.exit(1)
  }, LIMIT_MS)
  try {
    await check()
    done++
  } catch (error) {
    console.error(`${runtime}: ${name}:`, error)
    process.exit(1)
  }
  clearTimeout(limit)
}
console.log(`passed ${done} checks in ${runtime} ${globalThis.Bun?.version ?? globalThis.Deno?.version.deno ?? process.version}`)
process.exit(0)

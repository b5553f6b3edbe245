// Reading, writing and waiting.
import { once } from 'node:events'
import { createServer } from 'node:net'
import { Duplex, finished, PassThrough, pipeline } from 'node:stream'
import { finished as finishedPromise, pipeline as pipelinePromise } from 'node:stream/promises'
import { codeOf, noting, stateOf, watch } from '../log.mjs'
import { scene } from '../stage.mjs'

const turn = () => new Promise((resolve) => setImmediate(resolve))
const MEGABYTE = 1 << 20
/** Longer than connecting takes. */
const LATE_MS = 2_000

const reading = [
  scene('read(n) on readable', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair({ reads: 'server' })
    const socket = await accepted()
    client.on('readable', () => {
      for (let piece = client.read(5); piece !== null; piece = client.read(5)) clientLog.note(`read ${piece}`)
    })
    socket.end('five-five-fiverest')
    await clientLog.saw('read', 4)
    await closed()
  }),

  scene('unshift puts bytes back', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair({ reads: 'server' })
    const socket = await accepted()
    socket.write('head body')
    while (client.readableLength < 9) {
      client.read(0)
      await turn()
    }
    const all = /** @type {Buffer} */ (client.read())
    client.unshift(all.subarray(5))
    client.on('data', (chunk) => clientLog.data(chunk))
    await clientLog.heard(4)
    socket.end()
    await closed()
  }),

  ...[true, false].map((setsEncoding) =>
    scene(`for await, ${setsEncoding ? 'as text' : 'as bytes'}`, async ({ pair }) => {
      const { accepted, client, clientLog, closed } = await pair({ reads: 'server' })
      const socket = await accepted()
      if (setsEncoding) client.setEncoding('utf8')
      let text = ''
      const reading = (async () => {
        for await (const chunk of client) text += chunk
        clientLog.note(`the loop is over: ${text}`)
      })()
      socket.end('all of it')
      await reading
      await closed()
    }),
  ),

  scene('for await with a break destroys', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair({ reads: 'server' })
    const socket = await accepted()
    socket.write('one')
    for await (const _ of client) break
    clientLog.note(`after the loop | ${stateOf(client)}`)
    await closed()
  }),

  scene('for await over a connection that breaks', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog } = await pair({ reads: 'none' })
    const socket = await accepted()
    await new Promise((resolve) => client.write('never read', resolve))
    while (socket.readableLength < 10) {
      socket.read(0)
      await turn()
    }
    socket.destroy()
    await serverLog.saw('close')
    try {
      for await (const chunk of client) clientLog.data(chunk)
      clientLog.note('the loop is over')
    } catch (error) {
      clientLog.note(`the loop threw ${codeOf(error)}`)
    }
    await clientLog.saw('close')
  }),

  scene('pipe both ways', async ({ pair }) => {
    const { client, clientLog, closed } = await pair({ reads: 'client' }, (socket) => socket.pipe(socket))
    const source = new PassThrough()
    source.pipe(client)
    source.write('one ')
    source.end('two')
    await clientLog.heard(7)
    await closed()
  }),

  scene('pipeline, with a callback and as a promise', async ({ pair }) => {
    const { client, clientLog, closed } = await pair({ reads: 'none' }, (socket, log) =>
      pipeline(socket, new PassThrough(), socket, noting(log, 'pipeline')),
    )
    const sink = new PassThrough()
    let text = ''
    sink.on('data', (chunk) => {
      text += chunk
    })
    const received = pipelinePromise(client, sink).then(() => clientLog.note(`received ${text}`), noting(clientLog, 'pipeline'))
    client.end('there and back')
    await received
    await closed()
  }),

  scene('pipeline to a socket that is destroyed', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog } = await pair()
    await accepted()
    const source = new PassThrough()
    pipeline(source, client, noting(clientLog, 'pipeline'))
    source.write('some')
    await serverLog.heard(4)
    client.destroy()
    await clientLog.saw('pipeline')
    await clientLog.saw('close')
    clientLog.note(`the source is destroyed: ${source.destroyed}`)
  }),

  scene('finished: both ways, and one', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog, closed } = await pair({ server: { allowHalfOpen: true } })
    const socket = await accepted()
    finished(client, { readable: false }, noting(clientLog, 'finished writing'))
    finished(client, { writable: false }, noting(clientLog, 'finished reading'))
    const all = finishedPromise(client).then(() => clientLog.note('finished all'), noting(clientLog, 'finished all'))
    client.end('x')
    await serverLog.saw('end')
    await clientLog.saw('finished writing')
    socket.end('y')
    await all
    await closed()
  }),

  scene('finished: a destroyed socket closes too early', async ({ pair }) => {
    const { accepted, client, clientLog } = await pair()
    await accepted()
    finished(client, noting(clientLog, 'finished'))
    client.destroy()
    await clientLog.saw('finished')
    await clientLog.saw('close')
  }),

  scene('onread: the caller gives the buffer', async ({ listen, connect, log }) => {
    await listen(createServer((socket) => socket.on('error', () => {}).end('into the buffer')))
    const clientLog = log('client')
    const buffer = Buffer.alloc(64)
    const options = {
      onread: {
        buffer,
        callback: (/** @type {number} */ length, /** @type {Buffer} */ into) => {
          clientLog.data(into.subarray(0, length))
          if (into !== buffer) clientLog.note('another buffer')
          return true
        },
      },
    }
    try {
      watch(clientLog, connect(options), { data: false })
    } catch (error) {
      clientLog.note(`refused: ${codeOf(error)}`)
      return
    }
    await clientLog.saw('close')
  }),

  scene('highWaterMark and what is buffered', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair({
      client: { highWaterMark: 30 },
    })
    clientLog.note(`${client.readableHighWaterMark} ${client.writableHighWaterMark} ${client.readableObjectMode}`)
    await accepted()
    clientLog.note(`${client.write(Buffer.alloc(29))} ${client.writableLength}`)
    client.end()
    await closed()
  }),

  scene('as a web stream', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair({ reads: 'server' }, (socket) =>
      socket.once('data', () => socket.end('back')),
    )
    await accepted()
    const { readable, writable } = Duplex.toWeb(client)
    const writer = writable.getWriter()
    await writer.write(Buffer.from('there'))
    let text = ''
    for await (const chunk of readable) text += Buffer.from(/** @type {Uint8Array} */ (chunk))
    clientLog.note(`heard ${text}`)
    await closed()
  }),
]

const writing = [
  scene('cork and uncork', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog, closed } = await pair()
    await accepted()
    client.cork()
    client.write('a', noting(clientLog, 'a'))
    client.write(Buffer.from('b'), noting(clientLog, 'b'))
    client.write('c', noting(clientLog, 'c'))
    clientLog.note(`corked ${client.writableCorked}, ${client.writableLength} waiting`)
    client.uncork()
    await serverLog.heard(3)
    await clientLog.saw('c')
    client.end()
    await closed()
  }),

  scene('drain comes when the peer has read', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog, closed } = await pair({ reads: 'client' })
    const socket = await accepted()
    clientLog.note(`write gave ${client.write(Buffer.alloc(4 * MEGABYTE, 'd'), noting(clientLog, 'written'))}`)
    clientLog.note(`needs drain ${client.writableNeedDrain}`)
    socket.on('data', (chunk) => serverLog.data(chunk))
    await clientLog.saw('drain')
    clientLog.note(`then ${client.writableLength} ${client.writableNeedDrain}`)
    client.end()
    await closed()
  }),

  scene('encodings, an empty write, and bytesWritten', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog, closed } = await pair()
    await accepted()
    client.write('68656c6c6f', 'hex')
    client.write('IHRoZXJl', 'base64')
    client.write('', noting(clientLog, 'empty'))
    client.write('ö', 'latin1')
    client.setDefaultEncoding('latin1')
    client.write('ü', noting(clientLog, 'last'))
    await clientLog.saw('last')
    await serverLog.heard(13)
    clientLog.note(`${client.bytesWritten}`)
    client.end()
    await closed()
  }),

  scene('arguments that are wrong throw', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair()
    await accepted()
    for (const bad of [null, undefined, 5, {}, []]) {
      try {
        client.write(/** @type {never} */ (bad))
      } catch (error) {
        clientLog.note(`${JSON.stringify(bad)}: ${codeOf(error)}`)
      }
    }
    for (const bad of [-1, 'x', Number.NaN]) {
      try {
        client.setTimeout(/** @type {never} */ (bad))
      } catch (error) {
        clientLog.note(`timeout ${bad}: ${codeOf(error)}`)
      }
    }
    client.end()
    await closed()
  }),

  scene('writes in the callback of a write keep their order', async ({ pair }) => {
    const { accepted, client, serverLog, clientLog, closed } = await pair()
    await accepted()
    let left = 5
    const next = (/** @type {unknown} */ error) => {
      clientLog.note(`written ${codeOf(error)}`)
      if (left-- > 0) client.write(`${left}`, next)
      else client.end()
    }
    client.write('5', next)
    await serverLog.heard(6)
    await closed()
  }),

  scene('destroy with writes under way: their callbacks fail', async ({ pair }) => {
    const { accepted, client, clientLog } = await pair({ reads: 'client' })
    await accepted()
    client.write(Buffer.alloc(8 * MEGABYTE), noting(clientLog, 'first'))
    client.write('more', noting(clientLog, 'second'))
    await turn()
    client.destroy(new Error('mine'))
    await clientLog.saw('second')
    await clientLog.saw('close')
  }),
]

const waiting = [
  scene('an idle socket times out, and goes on', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog, closed } = await pair()
    await accepted()
    clientLog.note(`setTimeout gives the socket: ${client.setTimeout(30, () => clientLog.note('callback')) === client}`)
    await clientLog.saw('timeout')
    client.setTimeout(0)
    clientLog.note(`off | ${stateOf(client)}`)
    client.write('on')
    await serverLog.heard(2)
    client.end()
    await closed()
  }),

  scene('the option timeout', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair({ client: { timeout: LATE_MS } })
    clientLog.note(`set | ${stateOf(client)}`)
    await accepted()
    await clientLog.saw('timeout')
    client.end()
    await closed()
  }),

  scene('setTimeout before the connection, destroy in its listener', async ({ pair }) => {
    const { client, clientLog, closed } = await pair()
    client.setTimeout(LATE_MS)
    client.once('timeout', () => client.destroy())
    await clientLog.saw('timeout')
    await closed()
  }),

  scene('setTimeout and destroy: no timeout', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair()
    await accepted()
    client.setTimeout(1)
    client.destroy()
    await closed()
    await new Promise((resolve) => setTimeout(resolve, 10))
    clientLog.note(`${client.timeout}`)
  }),

  scene('the accepted socket times out', async ({ pair }) => {
    const { accepted, serverLog, closed } = await pair({}, (socket) => {
      socket.setTimeout(30)
      socket.once('timeout', () => socket.end())
    })
    await accepted()
    await serverLog.saw('timeout')
    await closed()
  }),

  scene('calls that only TCP needs are harmless', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair({
      client: { noDelay: true, keepAlive: true, keepAliveInitialDelay: 1000, autoSelectFamily: true, family: 4 },
      server: { noDelay: true, keepAlive: true, keepAliveInitialDelay: 1000 },
    })
    clientLog.note(`${client.setNoDelay() === client} ${client.setKeepAlive(true, 1000) === client}`)
    clientLog.note(`${client.ref() === client} ${client.unref() === client} ${client.ref() === client}`)
    const socket = await accepted()
    for (const one of [client, socket]) {
      clientLog.note(
        `${one.setNoDelay(false) === one} ${one.setKeepAlive(false) === one} ${one.ref() === one} ${one.unref() === one}`,
      )
      one.ref()
    }
    client.end()
    await closed()
  }),

  scene('what IP has and a path has not', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog, closed } = await pair()
    const told = (/** @type {import('node:net').Socket} */ one) =>
      JSON.stringify([one.address(), one.remoteAddress, one.remotePort, one.remoteFamily, one.localAddress, one.localPort])
    clientLog.note(`connecting ${told(client)}`)
    const socket = await accepted()
    clientLog.note(`connected ${told(client)}`)
    serverLog.note(`connected ${told(socket)}`)
    client.end()
    await closed()
    clientLog.note(`closed ${told(client)}`)
  }),

  scene('once() with a signal, and events.on', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair()
    await accepted()
    const controller = new AbortController()
    const never = once(client, 'timeout', { signal: controller.signal }).catch(noting(clientLog, 'once'))
    controller.abort()
    await never
    clientLog.note(`${client.listenerCount('timeout')} listener of timeout`)
    client.end()
    await closed()
  }),
]

export const moving = { reading, writing, waiting }

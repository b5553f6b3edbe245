// A socket before its connection is there, and at the moment when it is.
import { once } from 'node:events'
import { createServer } from 'node:net'
import { codeOf, noting, stateOf, watch } from '../log.mjs'
import { scene } from '../stage.mjs'

const turn = () => new Promise((resolve) => setImmediate(resolve))

export const opening = [
  scene('a word each way, and both end', async ({ pair }) => {
    const { client, clientLog, closed } = await pair({}, (socket) => socket.once('data', () => socket.write('from the server')))
    client.write('from the client')
    await clientLog.heard(15)
    client.end()
    await closed()
  }),

  scene('what a socket says of itself while it connects', async ({ pair }) => {
    const { client, clientLog, closed } = await pair()
    clientLog.note(`at once | ${stateOf(client)} allowHalfOpen ${client.allowHalfOpen}`)
    process.nextTick(() => clientLog.note(`in the next tick | ${stateOf(client)}`))
    client.once('connect', () => process.nextTick(() => clientLog.note(`a tick after connect | ${stateOf(client)}`)))
    await clientLog.saw('a')
    await clientLog.saw('a tick after connect')
    client.end()
    await closed()
  }),

  scene('once(socket, "connect") and once(socket, "ready")', async ({ pair }) => {
    const { client, clientLog, closed } = await pair()
    await once(client, 'connect').then((values) => clientLog.note(`connect gave ${values.length}`))
    client.once('connect', () => clientLog.note('a second connect'))
    client.end()
    await closed()
  }),

  scene('writes before the connection: order, callbacks, what is pending', async ({ pair }) => {
    const { client, clientLog, serverLog, closed } = await pair()
    const taken = client.write('one ', noting(clientLog, 'one'))
    clientLog.note(`write gave ${taken}, ${client.writableLength} waiting, need drain ${client.writableNeedDrain}`)
    client.write('two ', 'latin1', noting(clientLog, 'two'))
    client.write(Uint8Array.from([51]), noting(clientLog, 'three'))
    clientLog.note(`pending | ${stateOf(client)}`)
    await serverLog.heard(9)
    await clientLog.saw('three')
    client.end()
    await closed()
  }),

  scene('end with data before the connection', async ({ pair }) => {
    const { client, clientLog, closed } = await pair()
    client.end('all of it', noting(clientLog, 'end'))
    clientLog.note(`ending | ${stateOf(client)} ended ${client.writableEnded} finished ${client.writableFinished}`)
    await closed()
  }),

  scene('end without data before the connection', async ({ pair }) => {
    const { client, closed } = await pair()
    client.end()
    await closed()
  }),

  scene('a write after end before the connection', async ({ connect, listen, log }) => {
    await listen(createServer((socket) => socket.on('error', () => {}).resume()))
    const client = connect()
    const clientLog = watch(log('client'), client)
    client.end('x')
    client.write('y', noting(clientLog, 'late'))
    await clientLog.saw('close')
    await clientLog.saw('late')
  }),

  ...[
    ['destroy in the same tick', undefined],
    ['destroy with an error in the same tick', new Error('mine')],
  ].map(([name, error]) =>
    scene(/** @type {string} */ (name), async ({ connect, listen, log }) => {
      await listen(createServer((socket) => socket.on('error', () => {}).resume()))
      const client = connect()
      const clientLog = watch(log('client'), client)
      client.destroy(/** @type {Error | undefined} */ (error))
      clientLog.note(`destroyed | ${stateOf(client)} ${client.closed} ${codeOf(client.errored)}`)
      await clientLog.saw('close')
      await turn()
      clientLog.note(`after | ${stateOf(client)} ${client.closed} ${codeOf(client.errored)}`)
    }),
  ),

  scene('destroy twice: the first error counts', async ({ connect, listen, log }) => {
    await listen(createServer((socket) => socket.on('error', () => {}).resume()))
    const client = connect()
    const clientLog = watch(log('client'), client)
    client.destroy(new Error('first')).destroy(new Error('second'))
    await clientLog.saw('close')
  }),

  scene('destroy in the next tick, with a write and an end that wait', async ({ connect, listen, log }) => {
    await listen(createServer((socket) => socket.on('error', () => {}).resume()))
    const client = connect()
    const clientLog = watch(log('client'), client)
    client.write('one', noting(clientLog, 'one'))
    client.end('two', noting(clientLog, 'end'))
    process.nextTick(() => client.destroy())
    await clientLog.saw('close')
    await clientLog.saw('end')
    await turn()
  }),

  scene('destroySoon in the same tick', async ({ connect, listen, log }) => {
    await listen(createServer((socket) => socket.on('error', () => {}).resume()))
    const client = connect()
    const clientLog = watch(log('client'), client)
    client.destroySoon()
    await clientLog.saw('close')
  }),

  scene('destroySoon with data in the same tick', async ({ pair }) => {
    const { client, serverLog, closed } = await pair()
    client.write('to be sent')
    client.destroySoon()
    await serverLog.saw('end')
    await closed()
  }),

  scene('destroy in the listener of connect', async ({ connect, listen, log }) => {
    await listen(createServer((socket) => socket.on('error', () => {}).resume()))
    const client = connect()
    const clientLog = watch(log('client'), client)
    client.once('connect', () => client.destroy())
    await clientLog.saw('close')
  }),

  scene('end in the listener of connect', async ({ pair }) => {
    const { client, closed } = await pair()
    client.once('connect', () => client.end('hello'))
    await closed()
  }),

  scene('writes and reads after destroy', async ({ connect, listen, log }) => {
    await listen(createServer((socket) => socket.on('error', () => {}).resume()))
    const client = connect()
    const clientLog = watch(log('client'), client)
    client.destroy()
    client.write('late', noting(clientLog, 'write'))
    client.end('later', noting(clientLog, 'end callback'))
    clientLog.note(`read gave ${client.read()}`)
    await clientLog.saw('close')
    await clientLog.saw('write')
    await clientLog.saw('end callback')
  }),

  scene('pause, setEncoding and read before the connection', async ({ pair }) => {
    const { client, clientLog, accepted, closed } = await pair({ reads: 'server' })
    client.pause()
    client.setEncoding('utf8')
    clientLog.note(`read gave ${client.read()} ${client.read(3)}, paused ${client.isPaused()}, flowing ${client.readableFlowing}`)
    const socket = await accepted()
    socket.end('früh')
    clientLog.note(`still paused ${client.isPaused()} ${client.readableFlowing} ${client.readableEncoding}`)
    client.on('data', (chunk) => clientLog.note(`a ${typeof chunk}: ${chunk}`))
    client.resume()
    await closed()
  }),

  scene('a server that speaks first', async ({ pair }) => {
    const { closed } = await pair({}, (socket) => socket.end('banner'))
    await closed()
  }),

  scene('a server that speaks first and resets', async ({ pair }) => {
    const { clientLog } = await pair({}, (socket) => socket.write('banner', () => socket.destroy(new Error('broken'))))
    await clientLog.saw('close')
  }),

  scene('nothing listens', async ({ connect, log }) => {
    const client = connect()
    const clientLog = watch(log('client'), client)
    await clientLog.saw('close')
    await turn()
    clientLog.note(`errored ${codeOf(client.errored)} closed ${client.closed}`)
  }),

  scene('nothing listens: what waits fails', async ({ connect, log }) => {
    const client = connect()
    const clientLog = watch(log('client'), client)
    client.write('one', noting(clientLog, 'write callback'))
    client.end('two', noting(clientLog, 'end callback'))
    await clientLog.saw('close')
    await clientLog.saw('end callback')
  }),

  scene('nothing listens: once() rejects', async ({ connect, log }) => {
    const clientLog = log('client')
    await once(connect(), 'connect').catch(noting(clientLog, 'rejected'))
  }),

  scene(
    'the server has gone',
    async ({ connect, listen, log }) => {
      const server = await listen(createServer())
      await new Promise((resolve) => server.close(resolve))
      const client = connect()
      await watch(log('client'), client).saw('close')
    },
    { needs: ['server'] },
  ),

  scene('a signal that has aborted', async ({ connect, listen, log }) => {
    await listen(createServer())
    const client = connect({ signal: AbortSignal.abort(new Error('why')) })
    await watch(log('client'), client).saw('close')
  }),

  scene('a signal that aborts while the socket connects', async ({ connect, listen, log }) => {
    await listen(createServer((socket) => socket.on('error', () => {}).resume()))
    const controller = new AbortController()
    const client = connect({ signal: controller.signal })
    const clientLog = watch(log('client'), client)
    controller.abort()
    clientLog.note(`aborted | ${stateOf(client)}`)
    await clientLog.saw('close')
  }),

  scene('a signal that aborts after the connect', async ({ pair }) => {
    const controller = new AbortController()
    const { clientLog, accepted, closed } = await pair({ client: { signal: controller.signal } })
    await accepted()
    controller.abort()
    await closed()
    clientLog.note('over')
  }),
]

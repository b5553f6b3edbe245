// Who ends, how, and what the other one sees.
import { codeOf, noting, stateOf } from '../log.mjs'
import { scene } from '../stage.mjs'

const MEGABYTE = 1 << 20
const open = { allowHalfOpen: true }

/** @typedef {import('node:net').Socket} Socket */

/** What one end does to the connection. @type {Record<string, (socket: Socket) => unknown>} */
const acts = {
  end: (socket) => socket.end(),
  'end with data': (socket) => socket.end('the end'),
  destroy: (socket) => socket.destroy(),
  'destroy with an error': (socket) => socket.destroy(new Error('mine')),
  destroySoon: (socket) => socket.destroySoon(),
}

/** When it does so. @type {Record<string, (socket: Socket, act: () => unknown) => unknown>} */
const moments = {
  'at once': (_, act) => act(),
  'in the callback of a write': (socket, act) => socket.write('one', () => act()),
  'at the first bytes': (socket, act) => socket.once('data', act),
  'after a tick': (_, act) => process.nextTick(act),
}

/** Every act at every moment by either end, where the other one only reads and ends when it has to. */
const matrix = ['client', 'server'].flatMap((who) =>
  Object.entries(moments).flatMap(([when, wait]) =>
    Object.entries(acts).map(([what, act]) =>
      scene(`the ${who}, ${when}: ${what}`, async ({ pair }) => {
        const { accepted, client, clientLog, serverLog, closed } = await pair()
        const socket = await accepted()
        const [one, other] = who === 'client' ? [client, socket] : [socket, client]
        wait(one, () => act(one))
        if (when === 'at the first bytes') other.write('go')
        await closed()
        clientLog.note(`errored ${codeOf(client.errored)}`)
        serverLog.note(`errored ${codeOf(socket.errored)}`)
      }),
    ),
  ),
)

export const ending = [
  ...matrix,

  ...[
    ['the client ends; the server may answer later', {}, open],
    ['the client ends; both may be half-open', open, open],
  ].map(([name, client, server]) =>
    scene(/** @type {string} */ (name), async ({ pair }) => {
      const options = { client: /** @type {object} */ (client), server: /** @type {object} */ (server) }
      const made = await pair(options, (socket, log) => {
        socket.once('end', () => {
          setImmediate(() => {
            log.note(`answers | ${stateOf(socket)}`)
            socket.write('answer, ')
            socket.end('late', noting(log, 'end callback'))
          })
        })
      })
      await made.accepted()
      made.client.end('question')
      await made.closed()
    }),
  ),

  scene('the server ends; the client may go on', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog, closed } = await pair({ client: open, server: open })
    const socket = await accepted()
    socket.end('go on')
    await clientLog.saw('end')
    client.write('going on', noting(clientLog, 'write callback'))
    await serverLog.heard(8)
    client.end('done')
    await closed()
  }),

  scene('the server ends; a client that may go on does not', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair({ client: open, server: open })
    const socket = await accepted()
    socket.end('go on')
    await clientLog.saw('end')
    await new Promise((resolve) => setImmediate(resolve))
    clientLog.note(`half-open | ${stateOf(client)}`)
    client.destroy()
    await closed()
  }),

  scene('allowHalfOpen is set when the connection is there', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair()
    const socket = await accepted()
    client.allowHalfOpen = true
    socket.allowHalfOpen = true
    socket.end('go on')
    await clientLog.saw('end')
    await new Promise((resolve) => setImmediate(resolve))
    clientLog.note(`half-open | ${stateOf(client)}`)
    client.end()
    await closed()
  }),

  scene('the peer ends with writes waiting here: they are all sent', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog, closed } = await pair({ reads: 'client', server: open })
    const socket = await accepted()
    client.write(Buffer.alloc(4 * MEGABYTE, 'w'), noting(clientLog, 'write callback'))
    socket.end()
    await clientLog.sawOrClosed('end')
    socket.on('data', (chunk) => serverLog.data(chunk))
    await closed()
  }),

  scene('a megabyte and the end', async ({ pair }) => {
    const { accepted, client, closed } = await pair({}, (socket) => socket.end(Buffer.alloc(MEGABYTE, 'm')))
    client.write('x')
    await accepted()
    await closed()
  }),

  scene('destroySoon sends what was written', async ({ pair }) => {
    const { accepted, closed } = await pair({}, (socket) => {
      socket.write(Buffer.alloc(MEGABYTE, 's'))
      socket.destroySoon()
    })
    await accepted()
    await closed()
  }),

  scene('end twice, and a write after the end', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog, closed } = await pair({ server: open })
    const socket = await accepted()
    client.end('x', noting(clientLog, 'first end'))
    client.end(noting(clientLog, 'second end'))
    await clientLog.saw('second end')
    client.write('y', noting(clientLog, 'late write'))
    await clientLog.saw('late write')
    await serverLog.saw('end')
    socket.end()
    await closed()
  }),

  scene('the peer has closed: a write fails', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog } = await pair({ client: open })
    const socket = await accepted()
    socket.destroy()
    await serverLog.saw('close')
    await clientLog.saw('end')
    clientLog.note(`write gave ${client.write('into the void', noting(clientLog, 'write callback'))}`)
    await clientLog.saw('close')
  }),

  scene('the peer closes with bytes unread', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog } = await pair({ reads: 'client' })
    const socket = await accepted()
    await new Promise((resolve) => client.write('never read', resolve))
    // It does not read, so it cannot learn that the bytes have come.
    await arrived(socket, 10)
    socket.destroy()
    await serverLog.saw('close')
    await clientLog.saw('close')
  }),

  scene('the peer closes; this end has not read everything and reads it then', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog } = await pair({ reads: 'server' })
    const socket = await accepted()
    client.pause()
    await new Promise((resolve) => socket.end(Buffer.alloc(100_000, 'r'), () => resolve(undefined)))
    socket.destroy()
    await serverLog.saw('close')
    client.on('data', (chunk) => clientLog.data(chunk)).resume()
    await clientLog.saw('close')
  }),

  scene('a paused socket does not see the end', async ({ pair }) => {
    const { accepted, client, clientLog, serverLog, closed } = await pair({ reads: 'server' })
    const socket = await accepted()
    client.pause()
    socket.end('waiting')
    await serverLog.sawOrClosed('finish')
    await new Promise((resolve) => setImmediate(resolve))
    clientLog.note(`paused | ${client.readableEnded} ${client.destroyed}`)
    client.on('data', (chunk) => clientLog.data(chunk)).resume()
    await closed()
  }),

  scene('resetAndDestroy of a connection', async ({ pair }) => {
    const { accepted, client, clientLog } = await pair()
    await accepted()
    try {
      client.resetAndDestroy()
    } catch (error) {
      clientLog.note(`threw ${codeOf(error)}`)
      client.destroy()
    }
    await clientLog.saw('close')
  }),

  scene('resetAndDestroy of a destroyed socket', async ({ pair }) => {
    const { accepted, client, clientLog, closed } = await pair()
    await accepted()
    client.destroy()
    await closed()
    clientLog.note(`gave itself ${client.resetAndDestroy() === client}, errored ${codeOf(client.errored)}`)
  }),

  scene('both destroy at once', async ({ pair }) => {
    const { accepted, client, closed } = await pair()
    const socket = await accepted()
    client.destroy()
    socket.destroy()
    await closed()
  }),
]

/** Node does not read, so only the kernel can tell: a socket of the same process, which the peer's callback came before. */
/** @param {Socket} socket @param {number} bytes */
async function arrived(socket, bytes) {
  socket.read(0)
  while (socket.readableLength < bytes) await new Promise((resolve) => setImmediate(resolve))
}

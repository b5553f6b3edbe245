// http2.connect over a socket of ours: what a session does over `net`, when the server goes away above all.
import http2 from 'node:http2'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ServerProcess } from '../support/guest.js'
import { allWays, type Way } from '../support/ways.js'

/** Answers everything but /stream, of which only the head and some bytes come. */
const SERVER = `
  const server = http2.createServer()
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {})
    stream.respond({ ':status': 200 })
    if (headers[':path'] === '/stream') stream.write('some')
    else stream.end(headers[':path'])
  })
  server.on('sessionError', () => {})
  server.listen(path, listening)`

function session(way: Way): http2.ClientHttp2Session {
  const made = http2.connect('http://guest', { createConnection: () => way.connect() })
  made.on('error', () => {})
  return made
}

async function get(from: http2.ClientHttp2Session, path: string): Promise<string> {
  const stream = from.request({ ':path': path })
  let text = ''
  for await (const chunk of stream) text += chunk
  return text
}

const closed = (emitter: NodeJS.EventEmitter) => new Promise((resolve) => emitter.once('close', resolve))

describe.each(allWays)('http2 over $name', (kind) => {
  let way: Way
  let server: ServerProcess

  beforeEach(async () => {
    way = await kind.open()
    server = await ServerProcess.start(SERVER, way.path)
  })
  afterEach(async () => {
    await server.kill()
    await way[Symbol.asyncDispose]()
  })

  it('serves requests on a socket that still connects', async () => {
    const one = session(way)
    expect(await Promise.all([get(one, '/1'), get(one, '/2')])).toEqual(['/1', '/2'])
    const over = closed(one)
    one.close()
    await over
  })

  it('closes the session and its stream when the server is killed, and the next session is served', async () => {
    const one = session(way)
    const stream = one.request({ ':path': '/stream' })
    stream.on('error', () => {})
    await new Promise((resolve) => stream.once('data', resolve))
    stream.resume()
    const over = Promise.all([closed(one), closed(stream)])
    await server.kill()
    await over
    expect([one.destroyed, stream.destroyed]).toEqual([true, true])

    server = await ServerProcess.start(SERVER, way.path)
    const two = session(way)
    expect(await get(two, '/again')).toBe('/again')
    two.destroy()
  })

  it('closes an idle session when the server is killed', async () => {
    const one = session(way)
    expect(await get(one, '/')).toBe('/')
    const over = closed(one)
    await server.kill()
    await over
    expect(() => one.request({ ':path': '/' })).toThrow(/destroyed|closed/)
  })

  it('gives the error of a server that is not there', async () => {
    await server.kill()
    const one = http2.connect('http://guest', { createConnection: () => way.connect() })
    const error = await new Promise((resolve) => one.once('error', resolve))
    expect(error).toMatchObject({ code: 'ECONNREFUSED' })
    expect(one.destroyed).toBe(true)
  })
})

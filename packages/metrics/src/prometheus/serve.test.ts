import { once } from 'node:events'
import { connect } from 'node:net'
import { Registry } from 'prom-client'
import { expect, onTestFinished, test } from 'vitest'
import { parseListenAddress } from './address.js'
import { type ServeOptions, serveMetrics } from './serve.js'

const register = { contentType: Registry.PROMETHEUS_CONTENT_TYPE, metrics: async () => '# nothing\n' }

async function serving(options: Partial<ServeOptions> = {}) {
  const server = await serveMetrics({ register, ...options })
  onTestFinished(() => server.close())
  return server
}

test('GET /metrics is the text of the registry, also with a query', async () => {
  const { url, port } = await serving()
  expect(url).toBe(`http://127.0.0.1:${port}/metrics`)
  for (const target of [url, `${url}?name[]=x`]) {
    const response = await fetch(target)
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8'])
    expect(await response.text()).toBe('# nothing\n')
  }
})

test.each(['/', '/metrics/', '/metricsx', '/../metrics2', '//metrics'])('GET %s is 404', async (path) => {
  const { port } = await serving()
  const response = await fetch(`http://127.0.0.1:${port}${path}`)
  expect([response.status, await response.text()]).toEqual([404, 'The metrics are at /metrics.\n'])
})

test.each(['POST', 'PUT', 'DELETE', 'OPTIONS'])('%s /metrics is 405', async (method) => {
  const { url } = await serving()
  const response = await fetch(url, { method })
  expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
})

test('HEAD is as GET, without the text', async () => {
  const { url } = await serving()
  const response = await fetch(url, { method: 'HEAD' })
  const about = ['content-type', 'content-length'].map((name) => response.headers.get(name))
  expect([response.status, ...about, await response.text()]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8', '10', ''])
  expect((await fetch(`${url}x`, { method: 'HEAD' })).status).toBe(404)
})

test('a registry that fails is 500, and the next scrape works', async () => {
  let fails = true
  const metrics = async () => {
    if (fails) throw new Error('a gauge broke')
    return 'x 1\n'
  }
  const { url } = await serving({ register: { ...register, metrics } })
  const response = await fetch(url)
  expect([response.status, await response.text()]).toEqual([500, 'The metrics could not be collected: a gauge broke\n'])
  fails = false
  expect((await fetch(url)).status).toBe(200)
})

test('a port in use is a clear error', async () => {
  const { port } = await serving()
  await expect(serveMetrics({ register, port })).rejects.toMatchObject({
    code: 'EADDRINUSE',
    message: `listen 127.0.0.1:${port}: the port is in use (EADDRINUSE). Choose another port, or 0 for any free port.`,
  })
})

test('an address that is not of this machine is a clear error', async () => {
  await expect(serveMetrics({ register, host: '192.0.2.1' })).rejects.toMatchObject({
    code: 'EADDRNOTAVAIL',
    message: expect.stringMatching(/^listen 192.0.2.1:0: this machine does not have the address/),
  })
})

test('close() cuts a client that says nothing, and one whose answer is under way', async () => {
  const server = await serveMetrics({ register: { ...register, metrics: () => new Promise(() => {}) } })
  const [silent, waiting] = [connect(server.port, '127.0.0.1'), connect(server.port, '127.0.0.1')]
  const gone = [silent, waiting].map((socket) => new Promise((resolve) => socket.on('error', () => {}).once('close', resolve)))
  await Promise.all([once(silent, 'connect'), once(waiting, 'connect')])
  waiting.write('GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n')
  await Promise.all([server.close(), server.close(), ...gone])
  await expect(fetch(server.url)).rejects.toThrow()
})

test('what is not HTTP is answered and cut', async () => {
  const { port, url } = await serving()
  const socket = connect(port, '127.0.0.1').setEncoding('utf8')
  let answer = ''
  socket.on('data', (text) => (answer += text)).write('CONNECT 5000\n\n')
  await once(socket, 'close')
  expect(answer).toMatch(/^HTTP\/1.1 400 /)
  expect((await fetch(url)).status).toBe(200)
})

test.each([
  ['9100', '127.0.0.1', 9100],
  [':9100', '127.0.0.1', 9100],
  ['0', '127.0.0.1', 0],
  ['127.0.0.1:0', '127.0.0.1', 0],
  ['0.0.0.0:65535', '0.0.0.0', 65535],
  ['node-1.example:9100', 'node-1.example', 9100],
  ['[::1]:9100', '::1', 9100],
])('the address %s', (text, host, port) => {
  expect(parseListenAddress(text)).toEqual({ host, port })
})

test.each([
  '',
  'x',
  '65536',
  '-1',
  '127.0.0.1',
  '127.0.0.1:',
  '::1:9100',
  '[::1]',
  '[x]:1',
  'a b:1',
  'http://x:1',
  '1:2:3',
  '9100 ',
])('no address: %j', (text) => {
  expect(() => parseListenAddress(text)).toThrow(
    `address: must be a port, <host>:<port> or [<IPv6 address>]:<port>, got ${JSON.stringify(text)}`,
  )
})

test('an IPv6 address is in brackets in the URL', async () => {
  const server = await serveMetrics({ register, host: '::1' }).catch(() => undefined)
  // A machine without IPv6.
  if (server === undefined) return
  onTestFinished(() => server.close())
  expect(server.url).toBe(`http://[::1]:${server.port}/metrics`)
  expect((await fetch(server.url)).status).toBe(200)
  await expect(serveMetrics({ register, host: '::1', port: server.port })).rejects.toMatchObject({
    code: 'EADDRINUSE',
    subject: `[::1]:${server.port}`,
  })
})

import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect as netConnect } from 'node:net'
import { join } from 'node:path'
import { VmError } from '@upcall/vmm'
import { describe, expect, it } from 'vitest'
import { makeRig } from '../../../../packages/vmm/testing/rig.js'
import { fault, makeApi, raw } from '../../testing/api.js'
import { callApi } from '../demo/api-client.js'
import { type Log, silentLog } from '../log.js'
import { openApi, openApiDocument } from './app.js'

const DISK = { path_on_host: '/srv/data.img', is_read_only: true }

describe('what succeeds', () => {
  it('answers 200 with what was chosen, or 204', async () => {
    await using api = await makeApi()
    const { call } = api
    expect(await call('PUT', '/vm/resize', { desired_vcpus: 2, desired_ram: 512 * 2 ** 20 })).toEqual({
      status: 200,
      body: { added: [1], removed: [], present: [0, 1] },
    })
    expect(await call('PUT', '/vm/resize', { desired_ram: 512 * 2 ** 20 })).toEqual({ status: 204, body: undefined })
    expect(await call('PUT', '/drives/vdb', DISK)).toEqual({
      status: 200,
      body: { id: 'vdb', base: '0xd0000000', size: '0x2000', irq: 6 },
    })
    expect(await call('PUT', '/pci-devices/net1', { bdf: '0000:00:05.0' })).toEqual({
      status: 200,
      body: { id: 'net1', bdf: '00:05.0' },
    })
    expect(await call('PUT', '/pci-devices/net2')).toEqual({ status: 200, body: { id: 'net2', bdf: '00:01.0' } })
    const window = { base: '0xd0000000', size: '0x2000', irq: 6 }
    expect(await call('GET', '/vm')).toEqual({
      status: 200,
      body: {
        state: 'running',
        arch: 'x86_64',
        believed: {
          cpus: { present: [0, 1], unknown: [], max: 8 },
          memory: 512 * 2 ** 20,
          mmio: [{ id: 'vdb', ...window, ...DISK, status: 'present' }],
          pci: [
            { id: 'net1', bdf: '00:05.0', status: 'present' },
            { id: 'net2', bdf: '00:01.0', status: 'present' },
          ],
          spares: { cpus: [], pci: [] },
        },
        guest: {
          booted: true,
          paused: false,
          crashed: false,
          cpus: { online: [0, 1], present: [0, 1] },
          mmio: [window],
          pci: ['00:05.0', '00:01.0'],
        },
      },
    })
    expect(await call('DELETE', '/pci-devices/net1')).toEqual({ status: 204, body: undefined })
    expect(await call('DELETE', '/drives/vdb')).toEqual({ status: 204, body: undefined })
    expect(await call('POST', '/vm/reconcile')).toEqual({ status: 200, body: { restarted: false, settled: [], differences: [] } })
  })
})

describe('what is wrong in itself', () => {
  it.each([
    ['PUT', '/vm/resize', undefined, 400, /^body: must be a JSON object$/],
    ['PUT', '/vm/resize', null, 400, /^body: must be a JSON object$/],
    ['PUT', '/vm/resize', [], 400, /^body: must be a JSON object$/],
    ['PUT', '/pci-devices/net1', [], 400, /^body: must be a JSON object$/],
    ['PUT', '/pci-devices/net1', 'now', 400, /^body: must be a JSON object$/],
    ['PUT', '/vm/resize', {}, 400, /desired_vcpus, desired_ram or both/],
    ['PUT', '/vm/resize', { desired_vcpus: 0 }, 400, /desired_vcpus: must be at least 1/],
    ['PUT', '/vm/resize', { desired_vcpus: 1.5 }, 400, /desired_vcpus: must be an integer/],
    ['PUT', '/vm/resize', { desired_vcpus: '2' }, 400, /desired_vcpus: must be a number/],
    ['PUT', '/vm/resize', { desired_vcpus: 9 }, 400, /1 to 8/],
    ['PUT', '/vm/resize', { vcpus: 2 }, 400, /^vcpus: is not a key here; the keys are desired_vcpus, desired_ram$/],
    ['PUT', '/vm/resize', { desired_vcpus: 2, desired_ram: 1024 }, 400, /1024 bytes of memory: this machine takes whole MiB/],
    ['PUT', '/drives/vdb', {}, 400, /^path_on_host: is missing$/],
    ['PUT', '/drives/vdb', { path_on_host: '' }, 400, /path_on_host: must be a path/],
    ['PUT', '/drives/vdb', { path_on_host: 'a\0b' }, 400, /without NUL/],
    ['PUT', '/drives/vdb', { ...DISK, is_read_only: 'no' }, 400, /is_read_only: must be true or false/],
    ['PUT', '/drives/a%2fb', DISK, 400, /id: must be 1 to 64/],
    ['PUT', '/drives/%zz', DISK, 400, /percent-encoded/],
    ['PUT', '/pci-devices/net1', { bdf: '0001:00:05.0' }, 400, /domain/],
    ['PUT', '/pci-devices/net1', { bdf: '00:20.0' }, 400, /^bdf 00:20\.0: must be an integer from 0 to 31, got 32/],
    ['PUT', '/pci-devices/net1', { bdf: '01:05.0' }, 400, /bus 00 only/],
    ['PUT', '/pci-devices/net1', { bdf: 5 }, 400, /bdf: must be an address/],
    ['POST', '/vm/reconcile', { force: true }, 400, /^force: is not a key here; there are none$/],
    ['GET', '/', undefined, 404, /no such resource/],
    ['GET', '/vm/', undefined, 404, /no such resource/],
    ['PUT', '/drives/', DISK, 400, /id: must be/],
    ['DELETE', '/drives/vdb', undefined, 404, /there is no device with this id/],
    ['DELETE', '/pci-devices/net1', undefined, 404, /there is no device with this id/],
    ['POST', '/vm', undefined, 405, /takes GET/],
    ['GET', '/drives/vdb', undefined, 405, /takes PUT, DELETE/],
  ] as const)('%s %s %j → %i', async (method, resource, body, status, message) => {
    await using api = await makeApi()
    expect(await api.call(method, resource, body)).toEqual({ status, body: fault('not-sent', message) })
    expect(api.machine.events).toEqual([])
  })

  it('names the methods of a resource in Allow', async () => {
    await using api = await makeApi()
    expect(await raw(api.path, 'PATCH /vm/resize HTTP/1.1\r\nhost: vm\r\nconnection: close\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 405 [\s\S]*\r\nallow: PUT\r\n/,
    )
  })

  it.each([
    ['POST', '/vm', 405, 'abc'],
    ['POST', '/nosuch', 404, 'abc'],
    ['POST', '/nosuch', 404, ' '.repeat(70_000)],
  ])('%s %s: %i, whatever the body is', async (method, resource, status, body) => {
    await using api = await makeApi()
    const head = `${method} ${resource} HTTP/1.1\r\nhost: vm\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n`
    expect(await raw(api.path, head + body)).toMatch(new RegExp(`^HTTP/1\\.1 ${status} [^]*\\}\n$`))
  })

  it('keeps the connection of a request without a body that it refuses', async () => {
    await using api = await makeApi()
    const get = (path: string, more = '') => `GET ${path} HTTP/1.1\r\nhost: vm\r\n${more}\r\n`
    const answers = await raw(api.path, get('/nosuch') + get('/drives/vdb') + get('/vm', 'connection: close\r\n'))
    expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 404', 'HTTP/1.1 405', 'HTTP/1.1 200'])
  })

  it('refuses what is not JSON', async () => {
    await using api = await makeApi()
    const text = 'PUT /vm/resize HTTP/1.1\r\nhost: vm\r\nconnection: close\r\ncontent-length: 3\r\n\r\n{a}'
    expect(await raw(api.path, text)).toMatch(/^HTTP\/1\.1 400 [\s\S]*is not JSON/)
  })

  it('refuses what is not UTF-8, rather than open another file', async () => {
    await using api = await makeApi()
    const body = Buffer.from('{"path_on_host":"/srv/\xff.img"}', 'latin1')
    const head = `PUT /drives/vdb HTTP/1.1\r\nhost: vm\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n`
    expect(await raw(api.path, Buffer.concat([Buffer.from(head), body]))).toMatch(/^HTTP\/1\.1 400 [\s\S]*is not UTF-8/)
  })

  it.each([
    ['hello\r\n\r\n', 400],
    [`GET /vm HTTP/1.1\r\nx: ${'x'.repeat(100_000)}\r\n\r\n`, 431],
  ])('refuses what is not HTTP in the same words', async (text, status) => {
    await using api = await makeApi()
    const [head, body] = (await raw(api.path, text)).split('\r\n\r\n')
    expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    expect(JSON.parse(body!)).toEqual(fault('not-sent', /^request: malformed HTTP: /))
  })

  it('refuses what is not HTTP after the request before it has been answered', async () => {
    await using api = await makeApi()
    api.machine.kernel.pause()
    const body = '{"desired_vcpus":2}'
    const head = `PUT /vm/resize HTTP/1.1\r\nhost: vm\r\ncontent-length: ${body.length}\r\n\r\n`
    const answers = raw(api.path, `${head}${body}hello\r\n\r\n`)
    await expect.poll(() => api.manager.state).toBe('ServiceBusy')
    api.machine.kernel.resume()
    expect((await answers).match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 400'])
  })

  it('refuses a body over 64 KiB without reading it all', async () => {
    await using api = await makeApi()
    const text = `PUT /vm/resize HTTP/1.1\r\nhost: vm\r\ncontent-length: 10000000\r\n\r\n${' '.repeat(70_000)}`
    expect(await raw(api.path, text)).toMatch(/^HTTP\/1\.1 413 [\s\S]*connection: close[\s\S]*at most 65536 bytes/)
  })
})

it.each(['application/x-www-form-urlencoded', 'text/plain; charset=latin1', 'json', ''])(
  'takes the body for JSON if its content type is %j',
  async (type) => {
    await using api = await makeApi()
    const body = '{"desired_vcpus":2}'
    const head = `PUT /vm/resize HTTP/1.1\r\nhost: vm\r\nconnection: close\r\ncontent-type: ${type}\r\ncontent-length: ${body.length}\r\n\r\n`
    expect(await raw(api.path, head + body)).toMatch(/^HTTP\/1\.1 200 [\s\S]*"present":\[0,1\]/)
  },
)

it('carries a change through and logs it, even if its client hangs up', async () => {
  const lines: object[] = []
  await using api = await makeApi({ log: { ...silentLog, info: (fields: object) => void lines.push(fields) } as Log })
  api.machine.kernel.pause()
  const body = '{"desired_vcpus":2}'
  const socket = netConnect(api.path)
  socket.write(`PUT /vm/resize HTTP/1.1\r\nhost: vm\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  await expect.poll(() => api.manager.state).toBe('ServiceBusy')
  socket.destroy()
  await once(socket, 'close')
  api.machine.kernel.resume()
  await expect.poll(() => lines).toEqual([{ method: 'PUT', url: '/vm/resize', status: 200, ms: expect.any(Number) }])
})

describe('the OpenAPI document', () => {
  it('is made of the schemas that check the requests', async () => {
    const document = (await openApiDocument()) as { paths: Record<string, Record<string, object>> }
    expect(document).toMatchObject({ openapi: '3.1.0', info: { title: 'vmm-shim' } })
    const methods = Object.entries(document.paths).map(([path, item]) => [path, Object.keys(item)])
    expect(methods).toEqual([
      ['/vm', ['get']],
      ['/vm/resize', ['put']],
      ['/vm/reconcile', ['post']],
      ['/drives/{id}', ['put', 'delete']],
      ['/pci-devices/{id}', ['put', 'delete']],
    ])
    expect(document.paths['/vm/resize']!.put).toMatchObject({
      requestBody: {
        content: {
          'application/json': {
            schema: {
              type: 'object',
              additionalProperties: false,
              properties: { desired_vcpus: { type: 'integer', minimum: 1 }, desired_ram: { type: 'integer', minimum: 1 } },
            },
          },
        },
      },
      responses: { 200: {}, 204: {}, '4XX': {}, '5XX': {} },
    })
    expect(document.paths['/drives/{id}']!.put).toMatchObject({
      parameters: [{ in: 'path', name: 'id', required: true, schema: { type: 'string', pattern: '^[A-Za-z0-9._-]{1,64}$' } }],
    })
  })

  it('says which bodies may be left out', async () => {
    const { paths } = (await openApiDocument()) as {
      paths: Record<string, Record<string, { requestBody?: { required: boolean } }>>
    }
    const bodies = Object.entries(paths).flatMap(([path, item]) =>
      Object.entries(item).map(([method, { requestBody }]) => [`${method} ${path}`, requestBody?.required]),
    )
    expect(Object.fromEntries(bodies)).toEqual({
      'get /vm': undefined,
      'put /vm/resize': true,
      'post /vm/reconcile': false,
      'put /drives/{id}': true,
      'delete /drives/{id}': false,
      'put /pci-devices/{id}': false,
      'delete /pci-devices/{id}': false,
    })
  })

  it('is served', async () => {
    await using api = await makeApi()
    expect(await api.call('GET', '/openapi.json')).toEqual({ status: 200, body: await openApiDocument() })
  })
})

it('lets requests wait for the VM', async () => {
  await using rig = await makeRig()
  const path = join(rig.directory, 'api.sock')
  const api = await openApi({ transport: 'unix', path }, { log: silentLog })
  try {
    const early = callApi(path, 'GET', '/vm', undefined, 10_000)
    await once(netConnect(path).end(), 'close')
    api.serve(rig.vm)
    expect(await early).toMatchObject({ status: 200, body: { state: 'running' } })
  } finally {
    await api.close()
  }
})

it('says why the hardware failed, whose error is only a cause', async () => {
  await using api = await makeApi()
  api.machine.broken = true
  const broken = fault('not-sent', /the hardware is broken/)
  expect(await api.call('PUT', '/vm/resize', { desired_vcpus: 2 })).toEqual({ status: 503, body: broken })
  expect(await api.call('PUT', '/drives/vdb', DISK)).toEqual({ status: 503, body: broken })
})

it('says why a guest is not waited for any more', async () => {
  await using api = await makeApi()
  const gone = new AbortController()
  api.machine.guestGone = gone.signal
  api.machine.kernel.pause()
  const change = api.call('PUT', '/drives/vdb', DISK)
  await expect.poll(() => api.manager.state).toBe('ServiceBusy')
  gone.abort(new Error('the guest was reset'))
  expect(await change).toEqual({ status: 504, body: fault('indeterminate', /the guest was reset/) })
})

it('resizes both as one change', async () => {
  await using api = await makeApi()
  const { call, machine } = api
  machine.memoryFails = new VmError({ code: 'UNFINISHED', subject: '', what: 'no end' })
  expect(await call('PUT', '/vm/resize', { desired_vcpus: 2, desired_ram: 2 ** 30 })).toEqual({
    status: 504,
    body: fault('indeterminate', /no end; the vCPUs are 2 now/),
  })
})

describe('what cannot be done now', () => {
  it('409: the id or the address is taken', async () => {
    await using api = await makeApi()
    const { call } = api
    await call('PUT', '/drives/vdb', DISK)
    await call('PUT', '/pci-devices/net1', { bdf: '00:05.0' })
    expect(await call('PUT', '/drives/vdb', DISK)).toEqual({ status: 409, body: fault('not-sent', /the id is taken/) })
    expect(await call('PUT', '/pci-devices/net1')).toEqual({ status: 409, body: fault('not-sent', /the id is taken/) })
    expect(await call('PUT', '/pci-devices/net1')).toMatchObject({ body: { code: 'CONFLICT' } })
    expect(await call('PUT', '/pci-devices/net2', { bdf: '00:05.0' })).toEqual({
      status: 409,
      body: fault('not-sent', /is taken/),
    })
  })

  it('429: another change is under way', async () => {
    await using api = await makeApi()
    api.machine.kernel.pause()
    const first = api.call('PUT', '/vm/resize', { desired_vcpus: 4 })
    await expect.poll(() => api.manager.state).toBe('ServiceBusy')
    expect(await api.call('PUT', '/drives/vdb', DISK)).toEqual({
      status: 429,
      body: fault('not-sent', /resize 4 vCPUs is under way/),
    })
    expect((await api.call('GET', '/vm')).status).toBe(200)
    api.machine.kernel.resume()
    expect((await first).status).toBe(200)
  })

  it('502: the guest refused, with its errno', async () => {
    await using api = await makeApi({ onRequest: (_, { faults }) => (faults.fault = 'refuse') })
    expect(await api.call('PUT', '/vm/resize', { desired_vcpus: 2 })).toEqual({
      status: 502,
      body: fault('guest-error', /the guest refused: .* \(EIO\)/, -5),
    })
  })

  it('503: the guest boots or is dead', async () => {
    await using api = await makeApi()
    api.machine.guest = 'booting'
    expect(await api.call('PUT', '/drives/vdb', DISK)).toEqual({ status: 503, body: fault('not-sent', /still boots/) })
    api.machine.guest = 'dead'
    expect(await api.call('PUT', '/drives/vdb', DISK)).toEqual({ status: 503, body: fault('not-sent', /dead/) })
    expect((await api.call('GET', '/vm')).body).toMatchObject({ state: 'dead', guest: null, believed: { mmio: [] } })
  })

  it('503: no window is left', async () => {
    await using api = await makeApi()
    for (let at = 0; at < 128; at++) expect((await api.call('PUT', `/drives/d${at}`, DISK)).status).toBe(200)
    expect(await api.call('PUT', '/drives/one-more', DISK)).toEqual({
      status: 503,
      body: fault('not-sent', /no window or line is free/),
    })
  })

  it('504: the guest did not answer; 409 until a reconcile', async () => {
    await using api = await makeApi()
    api.machine.kernel.pause()
    const lost = api.call('PUT', '/drives/vdb', DISK)
    await api.loseReply()
    expect(await lost).toEqual({ status: 504, body: fault('indeterminate', /may have done it/) })
    expect(await api.call('DELETE', '/drives/vdb')).toEqual({ status: 409, body: fault('not-sent', /unknown whether/) })
    api.machine.kernel.resume()
    expect(await api.call('POST', '/vm/reconcile')).toEqual({
      status: 200,
      body: { restarted: false, settled: [{ kind: 'mmio', id: 'vdb', now: 'present' }], differences: [] },
    })
    expect((await api.call('DELETE', '/drives/vdb')).status).toBe(204)
  })
})

it('carries a change through though its client has hung up, and closes with its connections', async () => {
  await using api = await makeApi()
  const { machine, path } = api
  machine.kernel.pause()
  const body = JSON.stringify({ desired_vcpus: 2 })
  const hungUp = netConnect(path)
  hungUp.write(`PUT /vm/resize HTTP/1.1\r\nhost: vm\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  await expect.poll(() => api.manager.state).toBe('ServiceBusy')
  hungUp.destroy()
  machine.kernel.resume()
  await expect.poll(async () => (await api.vm.view()).believed.cpus.present).toEqual([0, 1])
  const idle = netConnect(path)
  const closed = new Promise((resolve) => idle.on('close', resolve))
  await new Promise((resolve) => idle.on('connect', resolve))
  await api[Symbol.asyncDispose]()
  await closed
  expect(existsSync(path)).toBe(false)
})

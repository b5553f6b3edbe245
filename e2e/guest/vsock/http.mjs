// HTTP by Node's own client and by undici, over AF_VSOCK.
import assert from 'node:assert/strict'
import http from 'node:http'
import { json } from 'node:stream/consumers'
import { test } from 'node:test'
import { connector, createConnection, listen } from '@upcall/vsock'
import { Agent, fetch, Pool } from 'undici'
import { TIMEOUT } from './support.mjs'

/** Answers with what was asked for, and how many bytes came with it. */
async function describe(request, response) {
  let length = 0
  for await (const chunk of request) length += chunk.length
  response.end(JSON.stringify({ method: request.method, url: request.url, length }))
}

async function httpServer(t) {
  const web = http.createServer((request, response) => void describe(request, response))
  const server = await listen('vsock://local:any')
  let connections = 0
  server.on('connection', (socket) => {
    connections += 1
    web.emit('connection', socket)
  })
  t.after(async () => {
    server.closeAllConnections()
    await server.close()
  })
  return { address: server.address, connections: () => connections }
}

test('http.Agent, kept alive: three requests, one connection', TIMEOUT, async (t) => {
  const { address, connections } = await httpServer(t)
  const agent = Object.assign(new http.Agent({ keepAlive: true, maxSockets: 1 }), { createConnection: createConnection(address) })
  t.after(() => agent.destroy())
  for (const path of ['/one', '/two', '/three']) {
    const answer = await new Promise((resolve, reject) => {
      const request = http.request({ agent, path, method: 'POST' }, (response) => {
        json(response).then(resolve, reject)
      })
      request.on('error', reject).end('x'.repeat(100_000))
    })
    assert.deepEqual(answer, { method: 'POST', url: path, length: 100_000 })
  }
  assert.equal(connections(), 1)
})

test('undici: fetch through an Agent, requests through a Pool', TIMEOUT, async (t) => {
  const { address } = await httpServer(t)
  const connect = connector(address)
  const agent = new Agent({ connect })
  t.after(() => agent.destroy())
  const response = await fetch('http://guest/fetched', { dispatcher: agent })
  assert.deepEqual(await response.json(), { method: 'GET', url: '/fetched', length: 0 })

  const pool = new Pool('http://guest', { connect, connections: 4 })
  t.after(() => pool.destroy())
  const answers = await Promise.all(
    Array.from({ length: 20 }, async (_, i) => {
      const { body } = await pool.request({ path: `/${i}`, method: 'PUT', body: Buffer.alloc(1_000 * i) })
      return body.json()
    }),
  )
  assert.deepEqual(
    answers,
    answers.map((_, i) => ({ method: 'PUT', url: `/${i}`, length: 1_000 * i })),
  )
})

test('http fails with the VsockError where there is no listener', TIMEOUT, async () => {
  const request = http.get({ createConnection: createConnection('vsock://local:4321') })
  const error = await new Promise((resolve) => request.once('error', resolve))
  assert.equal(error.code, 'ECONNREFUSED')
  assert.equal(error.op, 'connect')
})

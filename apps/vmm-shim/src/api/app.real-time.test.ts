// The time limits of a connection are kept by Node's http server, which takes no clock: the tests of this file run on real time.
import { once } from 'node:events'
import { connect as netConnect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { fault, makeApi } from '../../testing/api.js'

describe('a connection', () => {
  it.each([
    ['without a byte', ''],
    ['on which a head trickles in', 'GET /vm HTTP/1.1\r\nx-slow: '],
    ['on which a body trickles in', 'PUT /vm/resize HTTP/1.1\r\nhost: vm\r\ncontent-length: 1000\r\n\r\n'],
  ])('%s is cut off', async (_what, text) => {
    await using api = await makeApi({ requestTimeoutMs: 200 })
    const socket = netConnect(api.path)
    let answer = ''
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      answer += chunk
    })
    socket.on('error', () => {})
    if (text !== '') socket.write(text)
    const trickle = text === '' ? undefined : setInterval(() => socket.writable && socket.write(' '), 20)
    // Not once(), which rejects when a write meets the closed connection.
    await new Promise((resolve) => socket.once('close', resolve))
    clearInterval(trickle)
    expect(answer).toMatch(/^HTTP\/1\.1 408 /)
    expect(JSON.parse(answer.split('\r\n\r\n')[1]!)).toEqual(fault('not-sent', /^request: it did not arrive in time$/))
  })

  it('stays as long as any of its requests is under way', async () => {
    await using api = await makeApi({ requestTimeoutMs: 2_000 })
    api.machine.kernel.pause()
    const body = JSON.stringify({ desired_vcpus: 2 })
    const change = `PUT /vm/resize HTTP/1.1\r\nhost: vm\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n${body}`
    const look = 'GET /vm HTTP/1.1\r\nhost: vm\r\n\r\n'
    const socket = netConnect(api.path)
    const ended = once(socket, 'end')
    let answers = ''
    socket.setEncoding('utf8').on('data', (text) => (answers += text))
    socket.write(look + change)
    await expect.poll(() => answers).toMatch(/^HTTP\/1\.1 200/)
    await expect.poll(() => api.manager.state).toBe('ServiceBusy')
    // Longer than a connection may be without a request.
    await delay(4_500)
    api.machine.kernel.resume()
    await ended
    expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 200'])
  })

  it('is not cut off for a late request while another one is under way', async () => {
    await using api = await makeApi({ requestTimeoutMs: 200 })
    api.machine.kernel.pause()
    const body = '{"desired_vcpus":2}'
    const socket = netConnect(api.path)
    const closed = once(socket, 'close')
    let answers = ''
    socket.setEncoding('utf8').on('data', (text) => (answers += text))
    socket.write(`PUT /vm/resize HTTP/1.1\r\nhost: vm\r\ncontent-length: ${body.length}\r\n\r\n${body}GET /vm HT`)
    await expect.poll(() => api.manager.state).toBe('ServiceBusy')
    await delay(1_000)
    api.machine.kernel.resume()
    await closed
    expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 408'])
  })
})

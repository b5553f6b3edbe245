import { channel } from 'node:diagnostics_channel'
import { Registry, register } from 'prom-client'
import { expect, onTestFinished, test } from 'vitest'
import { exposeMetrics } from './expose.js'

const listens = () => ['client', 'vsock', 'vhost-user'].some((name) => channel(`upcall:${name}`).hasSubscribers)

test('serves the metrics of this process in a registry of its own, until it is closed', async () => {
  const server = await exposeMetrics('0')
  onTestFinished(() => server.close())
  expect(server.url).toBe(`http://127.0.0.1:${server.port}/metrics`)
  const text = await (await fetch(server.url)).text()
  expect(text).toContain('upcall_state{state="ServiceConnected"} 0')
  expect(text).toContain('process_resident_memory_bytes')
  expect(register.getMetricsAsArray()).toEqual([])
  await server.close()
  await server.close()
  expect(listens()).toBe(false)
  await expect(fetch(server.url)).rejects.toThrow()
})

test('what cannot be served is not counted either', async () => {
  const taken = await exposeMetrics('0', { processMetrics: false })
  const mine = new Registry()
  await expect(exposeMetrics(String(taken.port), { register: mine, processMetrics: false })).rejects.toMatchObject({
    code: 'EADDRINUSE',
  })
  expect(mine.getMetricsAsArray()).toEqual([])
  await taken.close()
  expect(listens()).toBe(false)
  await expect(exposeMetrics('nowhere')).rejects.toMatchObject({ code: 'ARGUMENT' })
  expect(listens()).toBe(false)
})

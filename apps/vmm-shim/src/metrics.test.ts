import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DeviceManager } from '@upcall/device-manager'
import { connect } from '@upcall/vsock'
import { expect, inject, onTestFinished, test } from 'vitest'
import { hasPromtool, promtoolSays } from '../../../packages/metrics/testing/promtool.js'
import { samplesOf } from '../../../packages/metrics/testing/samples.js'
import { temporaryDirectory } from '../../../packages/vmm/testing/rig.js'
import { callApi } from './demo/api-client.js'

const main = fileURLToPath(inject('programs').main)

/** `vmm-shim run` with a simulated guest, as a program of its own. */
async function launch(...more: string[]) {
  const directory = temporaryDirectory()
  const [uds, api] = [join(directory.path, 'vm.sock'), join(directory.path, 'api.sock')]
  const args = ['run', '--uds', uds, '--api', api, '--arch', 'x86_64', '--boot-ms', '1', '--log-level', 'warn', ...more]
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  const ended = once(child, 'close').then(([status]) => status as number | null)
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await ended
    directory[Symbol.dispose]()
  })
  return { api, uds, output, ended, child }
}

/** One whose API answers, and where its metrics are. */
async function serving(...more: string[]) {
  const vm = await launch('--metrics', '0', ...more)
  await expect.poll(() => vm.output.stdout, { timeout: 10_000 }).toContain('api ')
  const url = /^metrics (http:\/\/127\.0\.0\.1:\d+\/metrics)$/m.exec(vm.output.stdout)![1]!
  const scrape = async () => (await fetch(url)).text()
  await expect.poll(scrape, { timeout: 20_000 }).toContain('upcall_state{state="ServiceConnected"} 1')
  return { ...vm, url, scrape }
}

test('what the API does is counted to the last request, a refused one too, until the program ends', async () => {
  const { api, uds, url, scrape, child, ended } = await serving()
  expect((await callApi(api, 'PUT', '/vm/resize', { desired_vcpus: 3 })).status).toBe(200)
  expect((await callApi(api, 'PUT', '/pci-devices/net1', { bdf: '00:05.0' })).status).toBe(200)
  expect((await callApi(api, 'DELETE', '/pci-devices/net1')).status).toBe(204)
  // Another client takes the first window. It is a client of another process, and so is not counted.
  await using other = new DeviceManager({ arch: 'x86_64', dial: ({ signal }) => connect(`hvsock://${uds}:219`, { signal }) })
  await other.addMmio({ base: 0xd000_0000n, size: 0x2000n, irq: 6 })
  expect(await callApi(api, 'PUT', '/drives/vdb', { path_on_host: main })).toMatchObject({
    status: 502,
    body: { outcome: 'guest-error', errno: -17 },
  })
  const text = await scrape()
  const samples = samplesOf(text)
  const requests = Object.entries(samples.of('upcall_requests_total')).filter(([, value]) => value > 0)
  expect(Object.fromEntries(requests)).toEqual({
    'op=cpu.add,outcome=ok': 2,
    'op=pci.add,outcome=ok': 1,
    'op=pci.remove,outcome=ok': 1,
    'op=mmio.add,outcome=guest-error': 1,
  })
  expect(samples.of('upcall_request_failures_total')).toEqual({ 'code=EEXIST,op=mmio.add': 1 })
  expect(samples.of('upcall_request_duration_seconds_count')).toEqual({
    'op=cpu.add': 2,
    'op=pci.add': 1,
    'op=pci.remove': 1,
    'op=mmio.add': 1,
  })
  expect(samples.of('upcall_state')).toMatchObject({ 'state=ServiceConnected': 1, 'state=ServiceBusy': 0 })
  expect(samples.of('process_resident_memory_bytes')).toEqual({ '': expect.any(Number) })
  if (hasPromtool) expect(promtoolSays(text)).toEqual([])
  child.kill('SIGTERM')
  expect(await ended).toBe(0)
  await expect(fetch(url)).rejects.toThrow()
})

test('an address that cannot be used is wrong usage, and nothing is started', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  onTestFinished(() => void taken.close())
  const { port } = taken.address() as { port: number }
  const cases = [
    [String(port), `vmm-shim: --metrics ${port}: listen 127.0.0.1:${port}: the port is in use (EADDRINUSE). Choose another port`],
    ['host', 'vmm-shim: --metrics host: address: must be a port, <host>:<port> or [<IPv6 address>]:<port>, got "host"'],
  ] as const
  const launched = await Promise.all(cases.map(([address]) => launch('--metrics', address)))
  for (const [i, { ended, output }] of launched.entries()) {
    expect([await ended, output.stdout]).toEqual([2, ''])
    expect(output.stderr).toContain(cases[i]![1])
  }
})

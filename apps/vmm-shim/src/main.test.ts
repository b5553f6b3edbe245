import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DeviceManager } from '@upcall/device-manager'
import { connect } from '@upcall/vsock'
import { describe, expect, inject, it } from 'vitest'
import { temporaryDirectory } from '../../../packages/vmm/testing/rig.js'
import { isAlive } from '../testing/is-alive.js'
import { callApi } from './demo/api-client.js'

const main = fileURLToPath(inject('programs').main)

/** The name of a path in /tmp where there is nothing. */
const name = `vmm-shim-test-${process.pid}`
const X = `/tmp/${name}`

function launch(args: string[], { TMPDIR = process.env.TMPDIR }: { TMPDIR?: string | undefined } = {}) {
  const child: ChildProcess = spawn(process.execPath, [main, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...(TMPDIR !== undefined && { TMPDIR }) },
  })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]!.setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  }
  const ended = once(child, 'close').then(([status]) => status as number | null)
  return {
    child,
    output,
    ended,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await ended
    },
  }
}

async function listenOn(path: string): Promise<Disposable> {
  const server = createServer().listen(path)
  await once(server, 'listening')
  return { [Symbol.dispose]: () => void server.close() }
}

describe('a stdout without a reader', () => {
  it('ends the demo, which leaves nothing behind', async () => {
    using directory = temporaryDirectory()
    await using demo = launch(['demo', '--fast'], { TMPDIR: directory.path })
    demo.child.stdout!.once('data', () => demo.child.stdout!.destroy())
    expect(await demo.ended).toBe(141)
    expect([demo.output.stderr, readdirSync(directory.path)]).toEqual(['', []])
  })

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('and %s ends it with %i', async (signal, status) => {
    using directory = temporaryDirectory()
    await using demo = launch(['demo'], { TMPDIR: directory.path })
    demo.child.stdout!.once('data', () => demo.child.kill(signal))
    expect(await demo.ended).toBe(status)
    expect(readdirSync(directory.path)).toEqual([])
  })

  it('does not end a VMM', async () => {
    using directory = temporaryDirectory()
    const uds = join(directory.path, 'vm.sock')
    await using run = launch(['run', '--uds', uds, '--api', join(directory.path, 'api.sock'), '--boot-ms', '20'])
    run.child.stdout!.destroy()
    await expect.poll(() => run.output.stderr, { timeout: 10_000 }).toContain('the guest boots')
    await using manager = new DeviceManager({ arch: 'x86_64', dial: ({ signal }) => connect(`hvsock://${uds}:219`, { signal }) })
    await manager.ready({ timeoutMs: 10_000 })
    run.child.kill('SIGTERM')
    expect(await run.ended).toBe(0)
  })
})

describe('vmm-shim run', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)('serves until %s, which ends everything', async (signal) => {
    using directory = temporaryDirectory()
    const [uds, api] = [join(directory.path, 'vm.sock'), join(directory.path, 'api.sock')]
    await using run = launch([
      'run',
      '--uds',
      uds,
      '--api',
      api,
      '--arch',
      'x86_64',
      '--boot-ms',
      '20',
      '--cpus',
      '2',
      '--memory',
      '1G',
    ])
    await expect.poll(() => run.output.stdout, { timeout: 10_000 }).toContain('api ')
    expect(run.output.stdout).toContain(`hvsock://${uds}:219`)
    await using manager = new DeviceManager({ arch: 'x86_64', dial: ({ signal }) => connect(`hvsock://${uds}:219`, { signal }) })
    await manager.ready({ timeoutMs: 10_000 })
    await expect
      .poll(async () => (await callApi(api, 'GET', '/vm')).body)
      .toMatchObject({ state: 'running', believed: { memory: 2 ** 30 } })
    expect((await callApi(api, 'PUT', '/vm/resize', { desired_vcpus: 4 })).status).toBe(200)
    await manager.removeCpus({ apicIds: [3] })
    const boot = run.output.stderr.split('\n').find((line) => line.includes('the guest boots'))
    const guest = (JSON.parse(boot!) as { guest: number }).guest
    expect(isAlive(guest)).toBe(true)
    run.child.kill(signal)
    expect(await run.ended).toBe(0)
    expect([isAlive(guest), existsSync(uds), existsSync(api)]).toEqual([false, false, false])
  })

  it('takes its guest along when it is killed', async () => {
    using directory = temporaryDirectory()
    await using run = launch(['run', '--uds', join(directory.path, 'vm.sock')], { TMPDIR: directory.path })
    await expect.poll(() => run.output.stderr, { timeout: 10_000 }).toContain('the guest boots')
    const { guest } = JSON.parse(run.output.stderr.split('\n')[0]!) as { guest: number }
    run.child.kill('SIGKILL')
    await run.ended
    await expect.poll(() => isAlive(guest), { timeout: 10_000 }).toBe(false)
  })

  it.each([
    [['run'], /--uds/],
    [['run', '--uds', X, '--cpus', '0'], /1 to 255/],
    [['run', '--uds', X, '--cpus', '9'], /--max-cpus, which is 8/],
    [['run', '--uds', X, '--api', X], /is the path of --uds too/],
    [['run', '--uds', X, '--api', `/tmp/./${name}`], /--api .*is the path of --uds too/],
    [['run', '--uds', X, '--api', ''], /--api: is empty/],
    [['run', '--uds', X, '--qemu', '--api', `${X}.other`, '--monitor', `${X}.other`], /--monitor .*is the path of --api too/],
    [['run', '--uds', X, '--qemu', '--console', X], /--console .*is the path of --uds too/],
    [['run', '--uds', '/no/such/directory/vm'], /--uds .*its directory does not exist/],
    [['run', '--uds', main], /--uds .*exists and is not a socket/],
    [['run', '--uds', X, '--api', '/tmp'], /--api \/tmp: exists and is not a socket/],
    [
      ['run', '--uds', X, '--qemu', '--monitor', `/tmp/${'x'.repeat(103)}`],
      /has 108 bytes, and QEMU's socket has a path of at most 107/,
    ],
    [['run', '--uds', X, '--memory', '12Q'], /512M/],
    [['run', '--uds', X, '--vsock-profile', 'qemu'], /firecracker, cloud-hypervisor, dragonball/],
    [['run', '--uds', X, '--arch', 'mips'], /x86_64, aarch64/],
    [['run', '--uds', X, '--machine', 'pc'], /--machine: is only for a guest under QEMU/],
    [['run', '--uds', X, '--qemu', '--boot-ms', '5'], /--boot-ms: is only for a simulated guest/],
    [['run', '--uds', X, '--qemu', '--initrd', 'i'], /--initrd: needs --kernel/],
    [['run', '--uds', X, '--qemu', '--memory', '1000000'], /even number of MiB/],
    [['run', '--uds', X, '--qemu', '--memory', '3M'], /even number of MiB/],
    [['run', '--uds', X, '--qemu', '--max-memory', '256M'], /at least --memory/],
    [['run', '--uds', X, '--qemu', '--machine', 'microvm', '--max-cpus', '2'], /microvm has no ACPI table of CPUs/],
    [['run', '--uds', X, '--qemu', '--machine', 'microvm', '--max-memory', '1G'], /microvm's memory stays/],
    [['run', '--uds', X, '--qemu', '--kernel', '/no/such/kernel'], /--kernel \/no\/such\/kernel: does not exist/],
    [['run', '--uds', X, '--qemu', '--kernel', '/'], /--kernel \/: is a directory/],
    [
      ['run', '--uds', X, '--qemu', '--kernel', main, '--profile', 'dragonball', '--cpus', '2', '--max-cpus', '4'],
      /all vCPUs run at boot/,
    ],
    [['run', '--uds', X, '--qemu', '--console', '/no/such/file'], /--console \/no\/such\/file: cannot be written \(ENOENT\)/],
    [['run', '--uds', X, '--qemu', '--profile', 'dragonball'], /needs --kernel/],
    [['demo', '--record', '/no/such/demo.svg'], /--record \/no\/such\/demo.svg: cannot be written \(ENOENT\)/],
    [['fly'], /fly/],
  ])('%j: status 2, and says why', async (args, why) => {
    await using run = launch(args)
    expect(await run.ended).toBe(2)
    expect(run.output.stderr).toMatch(why)
  })

  it('status 1 where it cannot listen', async () => {
    using directory = temporaryDirectory()
    const uds = join(directory.path, 'vm.sock')
    using _ = await listenOn(uds)
    await using run = launch(['run', '--uds', uds])
    expect(await run.ended).toBe(1)
    expect(run.output.stderr).toContain('another server listens there')
  })
})

it('prints the OpenAPI document of its control API', async () => {
  await using printed = launch(['openapi'])
  expect(await printed.ended).toBe(0)
  expect(JSON.parse(printed.output.stdout)).toMatchObject({ openapi: '3.1.0', paths: { '/vm': {} } })
})

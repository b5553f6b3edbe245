import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { addonIfBuilt, addonPath, openDescriptors } from '../../testing/addon.js'

const addon = addonIfBuilt()
const run = promisify(execFile)

/** Plain CommonJS for another process or thread: the addon, and a listener without a client. */
const PRELUDE = `
  const addon = { exports: {} }
  process.dlopen(addon, PATH)
  const binding = addon.exports
  const listener = binding.socket(binding.AF_INET)
  const address = new Uint8Array(16)
  new Uint16Array(address.buffer)[0] = binding.AF_INET
  address.set([127, 0, 0, 1], 4)
  binding.bind(listener, address)
  binding.listen(listener, 0)
  const watch = () => binding.watch(listener, binding.READABLE, () => {})
  // Fills the backlog, so that the last ones stay pending.
  const connectSome = () => Array.from({ length: 4 }, () => {
    const connection = binding.socket(binding.AF_INET)
    binding.connect(connection, binding.getsockname(listener))
    return connection
  })
`

function node(program: string) {
  return run(process.execPath, ['-e', PRELUDE.replace('PATH', JSON.stringify(addonPath())) + program], { timeout: 25_000 })
}

describe.runIf(addon)('the addon in a process of its own', () => {
  it('passes its exercise', async () => {
    const exercise = fileURLToPath(new URL('../../native/exercise.mjs', import.meta.url))
    const { stdout } = await run(process.execPath, [exercise, addonPath()], { timeout: 25_000 })
    expect(stdout).toMatch(/^passed \d+ checks/)
  })

  it('keeps the process alive while it is watched, and not while it is not', async () => {
    // The timer itself keeps nothing alive: only a process that stays for the listener gets to see it.
    const later = `setTimeout(() => { console.log('alive'); binding.close(listener) }, 20).unref();`
    expect((await node(`${later} watch()`)).stdout).toBe('alive\n')
    expect((await node(`${later} watch(); binding.unref(listener); binding.ref(listener)`)).stdout).toBe('alive\n')
    expect((await node(later)).stdout).toBe('')
    await expect(node('watch(); binding.unwatch(listener)')).resolves.toBeDefined()
    await expect(node('watch(); binding.close(listener)')).resolves.toBeDefined()
  })

  it("lets the process exit once it is unref'd, before or after watching", async () => {
    await expect(node('watch(); binding.unref(listener)')).resolves.toBeDefined()
    await expect(node('binding.unref(listener); watch()')).resolves.toBeDefined()
    const pending = (how: string) =>
      `for (const c of connectSome()) { ${how}; binding.watch(c, binding.WRITABLE, () => binding.unwatch(c)) }`
    await expect(node(pending('binding.unref(c)'))).resolves.toBeDefined()
  })

  it('survives process.exit with everything pending', async () => {
    const program = `watch(); for (const c of connectSome()) binding.watch(c, binding.WRITABLE, () => {})
      setImmediate(() => process.exit(7))`
    await expect(node(program)).rejects.toMatchObject({ code: 7 })
  })

  it('says EMFILE when descriptors run out, with the connection still waiting for when there are some', async () => {
    const program = `
      const { closeSync, openSync } = require('node:fs')
      const connection = binding.socket(binding.AF_INET)
      binding.connect(connection, binding.getsockname(listener))
      binding.watch(connection, binding.WRITABLE, () => {
        binding.unwatch(connection)
        const codeOf = (call) => { try { call() } catch (error) { return error.code } }
        const files = []
        while (!codeOf(() => files.push(openSync('/dev/null'))));
        console.log(codeOf(() => binding.accept(listener)), codeOf(() => binding.placeholder()))
        for (const file of files.splice(0, 2)) closeSync(file)
        console.log(binding.accept(listener).peer.length)
      })`
    const plain = [process.execPath, '-e', PRELUDE.replace('PATH', JSON.stringify(addonPath())) + program]
    const { stdout } = await run('sh', ['-c', 'ulimit -n 64; exec "$@"', 'sh', ...plain], { timeout: 8_000 })
    expect(stdout).toBe('EMFILE EMFILE\n16\n')
  })

  it('makes what a callback throws an uncaught exception', async () => {
    const program = `
      process.on('uncaughtException', (error) => { console.log('caught', error.message); process.exit(3) })
      const [c] = connectSome()
      binding.watch(c, binding.WRITABLE, () => { throw new Error('from the callback') })`
    await expect(node(program)).rejects.toMatchObject({ code: 3, stdout: 'caught from the callback\n' })
  })

  it('runs microtasks and ticks after each callback, in the async context of the watch', async () => {
    const program = `
      const { AsyncLocalStorage } = require('node:async_hooks')
      const storage = new AsyncLocalStorage()
      const [c] = connectSome()
      storage.run('here', () => binding.watch(c, binding.WRITABLE, () => {
        binding.close(c)
        binding.close(listener)
        console.log('callback', storage.getStore())
        process.nextTick(() => console.log('tick', storage.getStore()))
        Promise.resolve().then(() => console.log('microtask', storage.getStore()))
      }))`
    expect((await node(program)).stdout).toBe('callback here\ntick here\nmicrotask here\n')
  })
})

describe.runIf(addon)('the addon in threads', () => {
  function thread(program: string): Worker {
    return new Worker(
      `const { parentPort } = require('node:worker_threads')\n${PRELUDE.replace('PATH', JSON.stringify(addonPath()))}${program}`,
      {
        eval: true,
      },
    )
  }

  it('is torn down in the middle of accepts and connects, over and over, and leaves nothing open', async () => {
    const program = `watch(); const all = connectSome(); for (const c of all) binding.watch(c, binding.WRITABLE, () => {})
      parentPort.postMessage('ready')`
    const round = async () => {
      const worker = thread(program)
      await once(worker, 'message')
      await worker.terminate()
    }
    await round()
    const before = openDescriptors()
    for (let i = 0; i < 10; i++) await round()
    expect(openDescriptors()).toBe(before)
  })

  it('ends with a thread that returns while nothing is watched', async () => {
    const worker = thread('connectSome()')
    expect(await once(worker, 'exit')).toEqual([0])
  })

  it('works in several threads at once, and in this one', async () => {
    const program = `
      const [c] = connectSome()
      binding.watch(c, binding.WRITABLE, () => {
        binding.finishConnect(c)
        binding.close(c)
        parentPort.postMessage(binding.accept(listener).peer.length)
      })`
    const answers = await Promise.all([1, 2, 3].map(() => once(thread(program), 'message')))
    expect(answers).toEqual([[16], [16], [16]])
  })
})

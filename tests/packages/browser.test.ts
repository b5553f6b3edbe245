// The pure parts of the packages have entry points that a bundler takes for a browser: there is no module of Node in them.
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { createContext, runInContext } from 'node:vm'
import { expect, test } from 'vitest'

interface Esbuild {
  build(options: object): Promise<{ outputFiles: { text: string }[] }>
}
// The esbuild that builds our own packages.
const { build } = createRequire(createRequire(import.meta.url).resolve('tsup'))('esbuild') as Esbuild

/** Entry point → a program that leaves its result in `result`. */
const programs: Record<string, { program: string; result: unknown }> = {
  '@upcall/vsock/address': {
    program: `
      import { formatAddress, isAddressError, parseAddress } from '@upcall/vsock/address'
      const refused = () => { try { parseAddress('vsock://3') } catch (error) { return isAddressError(error) && error.what } }
      globalThis.result = [parseAddress('hvsock:///run/vm.sock:219'), formatAddress(parseAddress('vsock://2:any')), refused()]
    `,
    result: [{ transport: 'hvsock', path: '/run/vm.sock', port: 219 }, 'vsock://host:any', 'there is no port'],
  },
  '@upcall/device-manager/simulated': {
    program: `
      import { deviceManagerGuest, simulatedGuest } from '@upcall/device-manager/simulated'
      const guest = simulatedGuest({ arch: 'x86_64', cpus: 2 })
      const session = deviceManagerGuest(guest).open({ id: 1, remote: '', delay: async () => {} })
      globalThis.result = [session.greeting.length, guest.state.cpus.online]
    `,
    result: [1024, [0, 1]],
  },
  '@upcall/client/machine': {
    program: `
      import { SessionMachine } from '@upcall/client/machine'
      const service = {
        byte: 0x65,
        messageSize: 1,
        checkGreeting() {},
        encode: (_request, into) => into,
        decode: ([byte]) => byte,
        failed: () => false,
        replyTimeoutMs: () => 1000,
      }
      const pace = { budgetMs: 1000, minDelayMs: 1, maxDelayMs: 1 }
      const options = { service, remote: 'guest', dialMs: 1000, greetingMs: 1000, pace, queue: 'busy' }
      const machine = new SessionMachine(options, 0)
      const conn = 1
      const ticket = { id: 7, request: 'x', bytes: Uint8Array.of(1), op: 'ask', needsClean: false, replyTimeoutMs: 1000, deadline: Infinity }
      const events = [
        { type: 'wake' },
        { type: 'dialed', conn },
        { type: 'bytes', conn, chunk: Uint8Array.of(0) },
        { type: 'request', ticket },
        { type: 'bytes', conn, chunk: Uint8Array.of(42) },
      ]
      const effects = events.flatMap((event) => machine.step(event, 0))
      globalThis.result = [machine.state, effects.map(({ type }) => type), effects.find(({ type }) => type === 'reply').reply]
    `,
    result: ['ServiceConnected', ['dial', 'write', 'state', 'state', 'write', 'state', 'reply', 'state'], 42],
  },
}

test.each(Object.entries(programs))('%s bundles for a browser, and runs there', async (_entry, { program, result }) => {
  const { outputFiles } = await build({
    stdin: { contents: program, resolveDir: fileURLToPath(new URL('..', import.meta.url)) },
    ...{ bundle: true, write: false, platform: 'browser', format: 'iife', conditions: ['@upcall/source'], logLevel: 'silent' },
  })
  const [{ text }] = outputFiles as [{ text: string }]
  // A context has the language and nothing of Node.
  const context = createContext({}) as { result?: unknown }
  runInContext(text, context)
  expect(JSON.stringify(context.result)).toBe(JSON.stringify(result))
})

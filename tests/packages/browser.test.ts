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

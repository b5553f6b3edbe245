// A bundler has put @upcall/vsock into a program: where its addon is looked for then.
import { execFile } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../', import.meta.url))
const vsock = join(root, 'packages/vsock')
const addon = [join(vsock, 'build/Release'), join(vsock, `prebuilds/linux-${process.arch}`)]
  .map((folder) => join(folder, 'upcall_vsock.node'))
  .find((path) => existsSync(path))

interface Esbuild {
  build(options: object): Promise<unknown>
}
// The esbuild that builds our own packages.
const { build } = createRequire(createRequire(import.meta.url).resolve('tsup'))('esbuild') as Esbuild

// Where there is no /dev/vsock, that is said by the addon, too.
const PROGRAM = `
import { connect, localCid } from '@upcall/vsock'
try { localCid() } catch (error) { if (error.code === 'ENOTSUP') { console.log(error.message); process.exit(3) } }
console.log('loaded')
`

let scratch: string
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'upcall-bundle-'))
})
afterAll(() => rmSync(scratch, { recursive: true }))

describe.runIf(addon)('a bundle', { timeout: 60_000 }, () => {
  describe.each(['esm', 'cjs'] as const)('as %s', (format) => {
    const start = async (folder: string, env: Record<string, string> = {}) => {
      const file = join(folder, format === 'esm' ? 'server.mjs' : 'server.cjs')
      if (!existsSync(file))
        await build({
          stdin: { contents: PROGRAM, resolveDir: fileURLToPath(new URL('..', import.meta.url)) },
          ...{ outfile: file, format, bundle: true, platform: 'node', conditions: ['@upcall/source'], logLevel: 'error' },
          logOverride: { 'empty-import-meta': 'silent' },
        })
      // The tests themselves go without the addon.
      const { UPCALL_VSOCK_ADDON: _, ...rest } = process.env
      return run(process.execPath, [file], { env: { ...rest, ...env } }).then(
        ({ stdout }) => stdout,
        ({ stdout, stderr }: { stdout: string; stderr: string }) => stdout + stderr,
      )
    }

    test('says what it lacks, and loads what it is given', async () => {
      const folder = join(scratch, format)
      mkdirSync(folder)
      const lacking = await start(folder)
      expect(lacking).toContain(
        `This is a bundle, without the addon of @upcall/vsock: copy the package's prebuilds/ to ${folder}/prebuilds, or set UPCALL_VSOCK_ADDON`,
      )
      expect(await start(folder, { UPCALL_VSOCK_ADDON: addon! })).toBe('loaded\n')
      const prebuilds = join(folder, `prebuilds/linux-${process.arch}`)
      mkdirSync(prebuilds, { recursive: true })
      cpSync(addon!, join(prebuilds, 'upcall_vsock.node'))
      expect(await start(folder)).toBe('loaded\n')
    })
  })
})

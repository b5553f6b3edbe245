// What a consumer gets: each package is packed and judged by publint and arethetypeswrong; each library is installed alone (with what it
// depends on) into an empty project, loaded as ESM and as CJS, and the programs in its README run as printed. Needs dist/, which `npm
// test` builds first.
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../', import.meta.url))
const packages = join(root, 'packages')
const { packageManager } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { packageManager: string }

interface Manifest {
  name: string
  version: string
  exports: Record<string, unknown>
  dependencies?: Record<string, string>
  peerDependencies?: Record<string, string>
}

const libraries = ['wire', 'vsock', 'client', 'server', 'device-manager', 'vmm', 'testkit']
/** Their READMEs' programs need QEMU, so only their tarballs are looked at. */
const machines = ['qemu', 'vhost-user']
const apps = ['cli', 'vmm-shim']
const manifests = new Map(
  [...libraries, ...machines].map((name) => [
    name,
    JSON.parse(readFileSync(join(packages, name, 'package.json'), 'utf8')) as Manifest,
  ]),
)

/** A library and all of ours that it needs, itself first. */
function closure(name: string): string[] {
  const { dependencies, peerDependencies } = manifests.get(name)!
  const ours = Object.keys({ ...dependencies, ...peerDependencies }).map((dependency) => dependency.replace('@upcall/', ''))
  return [...new Set([name, ...ours.flatMap(closure)])]
}

/** The programs of a README: each ```js block that imports something, with the ```text block right behind it as the output it promises. */
function programs(readme: string): { code: string; output: string | undefined }[] {
  return [...readme.matchAll(/```js\n(.*?)```\n(?:\s*```text\n(.*?)```)?/gs)]
    .map(([, code, output]) => ({ code: code!, output }))
    .filter(({ code }) => /^import /m.test(code))
}

const scratch = mkdtempSync(join(tmpdir(), 'upcall-packed-'))
const tarballs = new Map<string, string>()

/** pnpm packs as it publishes: workspace ranges become versions, and the root's licence goes in. */
async function pack(folder: string): Promise<string> {
  // What an npx around this run was told to bring (npx -p node@24 vitest run) is not for the npx below.
  const { npm_config_package: _, ...env } = process.env
  const { stdout } = await run('npx', ['-y', packageManager, 'pack', '--json', '--pack-destination', scratch], {
    cwd: folder,
    env,
  })
  return (JSON.parse(stdout) as { filename: string }).filename
}

beforeAll(async () => {
  for (const name of [...libraries, ...machines]) tarballs.set(name, await pack(join(packages, name)))
  for (const name of apps) tarballs.set(name, await pack(join(root, 'apps', name)))
}, 120_000)

afterAll(() => rmSync(scratch, { recursive: true, force: true }))

describe.each(libraries)('@upcall/%s', (name) => {
  const project = join(scratch, name)
  const entries = Object.keys(manifests.get(name)!.exports)
    .filter((entry) => entry !== './package.json')
    .map((entry) => `@upcall/${name}${entry.slice(1)}`)
  const node = async (file: string) => (await run(process.execPath, [file], { cwd: project, timeout: 20_000 })).stdout

  beforeAll(async () => {
    await run('mkdir', ['-p', project])
    writeFileSync(join(project, 'package.json'), '{ "private": true }\n')
    const files = closure(name).map((needed) => tarballs.get(needed)!)
    await run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--ignore-scripts', ...files], { cwd: project })
  }, 60_000)

  test('brings the licence, its sources and no test', async () => {
    const { stdout } = await run('tar', ['-tzf', tarballs.get(name)!])
    const files = stdout.trim().split('\n')
    expect(files).toEqual(
      expect.arrayContaining([
        'package/LICENSE',
        'package/README.md',
        'package/dist/index.js',
        'package/dist/index.cjs',
        'package/src/index.ts',
      ]),
    )
    expect(files.filter((file) => /[.]test[.]|\/test-|tsconfig|vitest/.test(file))).toEqual([])
  })

  test.each(entries)('%s exports the same names to import and to require', async (entry) => {
    // A bundler may rename a class, and inspecting or logging an instance would show that name.
    const print = `const list = (all) => console.log(Object.entries(all).filter(([n]) => n !== 'default')
      .map(([n, v]) => (typeof v === 'function' && v.name !== n ? n + ' calls itself ' + v.name : n)).sort().join())\n`
    writeFileSync(join(project, 'names.mjs'), `${print}list(await import('${entry}'))\n`)
    writeFileSync(join(project, 'names.cjs'), `${print}list(require('${entry}'))\n`)
    const [esm, cjs] = [await node('names.mjs'), await node('names.cjs')]
    expect(esm).toBe(cjs)
    expect(esm.trim().length).toBeGreaterThan(0)
    expect(esm).not.toContain(' calls itself ')
  })

  const examples = programs(readFileSync(join(packages, name, 'README.md'), 'utf8'))

  test('its README has a program', () => expect(examples.length).toBeGreaterThan(0))

  test.each(examples.map((example, i) => ({ ...example, i })))(
    'program $i of its README runs as printed',
    async ({ code, output, i }) => {
      writeFileSync(join(project, `readme-${i}.mjs`), code)
      const stdout = await node(`readme-${i}.mjs`)
      if (output !== undefined) expect(stdout).toBe(output)
    },
  )
})

describe('the tarballs', () => {
  // Each tool exits with 1 when it finds something, and what it says is then in the message of the rejection.
  const judge = (name: string, bin: string, ...argv: string[]) =>
    run(join(root, 'node_modules/.bin', bin), [tarballs.get(name)!, ...argv]).catch(({ stdout, stderr }) => {
      throw new Error(`${bin} on ${name}:\n${stdout}${stderr}`)
    })

  test.each([...libraries, ...machines, ...apps])('publint: %s', async (name) => {
    expect((await judge(name, 'publint', '--strict')).stdout).toContain('All good!')
  })

  test.each([...libraries, ...machines])('import and require both find the types of %s', async (name) => {
    expect((await judge(name, 'attw', '--profile', 'node16')).stdout).toMatch(/🟢 \(CJS\)/)
  })
})

test('an error of the ESM copy is recognised by the CJS copy', async () => {
  const project = join(scratch, 'client')
  writeFileSync(
    join(project, 'brands.mjs'),
    `import { createRequire } from 'node:module'
     import { ClosedError } from '@upcall/client'
     const cjs = createRequire(import.meta.url)('@upcall/client')
     const error = new ClosedError('not-sent', 'test')
     console.log(error instanceof cjs.ClosedError, cjs.isUpcallError(error))\n`,
  )
  const { stdout } = await run(process.execPath, ['brands.mjs'], { cwd: project })
  expect(stdout).toBe('false true\n')
})

// What a consumer gets: each package is packed and judged by publint and arethetypeswrong; each library is installed alone (with what it
// depends on) into an empty project, loaded as ESM and as CJS, and the programs in its README run as printed. Its declarations compile
// with the oldest TypeScript that the README states, and with the newest. Needs dist/, which `npm test` builds first.
import { execFile } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { isBuiltin } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../', import.meta.url))
const packages = join(root, 'packages')
const { packageManager } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { packageManager: string }

interface Manifest {
  name: string
  private?: boolean
  version: string
  exports: Record<string, unknown>
  dependencies?: Record<string, string>
  peerDependencies?: Record<string, string>
  devDependencies?: Record<string, string>
}

const manifestOf = (name: string) => JSON.parse(readFileSync(join(packages, name, 'package.json'), 'utf8')) as Manifest
const manifests = new Map(
  readdirSync(packages)
    .map((name) => [name, manifestOf(name)] as const)
    .filter(([, { private: unpublished }]) => unpublished !== true),
)
const libraries = [...manifests.keys()]
/** The programs in their READMEs need QEMU. */
const machines = ['qemu', 'vhost-user']
const apps = ['cli', 'vmm-shim']

/** Other packages that the programs in READMEs use: those that the tests have. */
const others = [
  '@bufbuild/protobuf',
  '@connectrpc/connect',
  '@connectrpc/connect-node',
  '@grpc/grpc-js',
  'undici',
  'undici-8',
  'ws',
]
const [major, minor] = process.versions.node.split('.').map(Number) as [number, number]
const hasUndici8 = major > 22 || (major === 22 && minor >= 19)

/** What a library can be imported by. */
const entriesOf = (name: string) =>
  Object.keys(manifests.get(name)!.exports)
    .filter((entry) => !/[.](json|lua)$/.test(entry) && entry !== './prebuilds/*')
    .map((entry) => `@upcall/${name}${entry.slice(1)}`)

/** The entries that are files at the top: `index`, or those of a package that has only subpaths. */
const mainsOf = (name: string) =>
  '.' in manifests.get(name)!.exports ? ['index'] : entriesOf(name).map((entry) => basename(entry))

/** A library and all of ours that it needs, itself first. */
function closure(name: string): string[] {
  const { dependencies, peerDependencies } = manifests.get(name)!
  const ours = Object.keys({ ...dependencies, ...peerDependencies })
    .filter((dependency) => dependency.startsWith('@upcall/'))
    .map((dependency) => dependency.replace('@upcall/', ''))
  return [...new Set([name, ...ours.flatMap(closure)])]
}

/** The programs of a README: each ```js block that imports something, with the ```text block right after it as the output it promises. */
function programs(readme: string): Program[] {
  return [...readme.matchAll(/```js\n(.*?)```\n(?:\s*```text\n(.*?)```)?/gs)]
    .map(([, code, output], i) => ({ name: `program ${i}`, code: code!, output }))
    .filter(({ code }) => /^import /m.test(code))
    .flatMap((program) => [program, ...withUndici8(program)])
}

interface Program {
  name: string
  code: string
  output: string | undefined
}

/** The same program with the other undici. */
function withUndici8({ name, code, output }: Program): Program[] {
  if (!code.includes("from 'undici'") || !hasUndici8) return []
  return [{ name: `${name}, with undici 8,`, code: code.replace("from 'undici'", "from 'undici-8'"), output }]
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
  const { filename } = JSON.parse(stdout) as { filename: string }
  await addAddon(folder, filename)
  return filename
}

/** A release has the addons, built for each machine that is published for. Elsewhere the tarball gets this machine's build. */
async function addAddon(folder: string, tarball: string): Promise<void> {
  const [built, prebuilds] = [join(folder, 'build/Release'), join('package/prebuilds', `linux-${process.arch}`)]
  if (existsSync(join(folder, 'prebuilds')) || !existsSync(built)) return
  const stage = mkdtempSync(join(scratch, 'stage-'))
  await run('tar', ['-xzf', tarball, '-C', stage])
  cpSync(built, join(stage, prebuilds), { recursive: true })
  await run('tar', ['-czf', tarball, '-C', stage, 'package'])
}

beforeAll(async () => {
  for (const name of libraries) tarballs.set(name, await pack(join(packages, name)))
  for (const name of apps) tarballs.set(name, await pack(join(root, 'apps', name)))
}, 600_000)

/** An empty project with these libraries in it. */
async function projectWith(name: string, needed: readonly string[]): Promise<string> {
  const project = join(scratch, name)
  mkdirSync(project)
  writeFileSync(join(project, 'package.json'), '{ "private": true }\n')
  const files = needed.map((library) => tarballs.get(library)!)
  await run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--ignore-scripts', ...files], { cwd: project })
  return project
}

afterAll(() => rmSync(scratch, { recursive: true, force: true }))

describe.each(libraries)('@upcall/%s', (name) => {
  const project = join(scratch, name)
  const node = async (file: string) => (await run(process.execPath, [file], { cwd: project, timeout: 20_000 })).stdout

  beforeAll(async () => void (await projectWith(name, closure(name))), 180_000)

  test('brings the licence, its sources and no test', async () => {
    const { stdout } = await run('tar', ['-tzf', tarballs.get(name)!])
    const files = stdout.trim().split('\n')
    expect(files).toEqual(
      expect.arrayContaining([
        'package/LICENSE',
        'package/README.md',
        ...mainsOf(name).flatMap((main) => [`package/dist/${main}.js`, `package/dist/${main}.cjs`, `package/src/${main}.ts`]),
      ]),
    )
    expect(files.filter((file) => /[.]test[.]|\/test-|tsconfig|vitest/.test(file))).toEqual([])
  })

  test.each(entriesOf(name))('%s exports the same names to import and to require', async (entry) => {
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

  test('nothing in its dist leads out of it', () => {
    const folder = join(project, 'node_modules/@upcall', name)
    const files = readdirSync(join(folder, 'dist'), { recursive: true, encoding: 'utf8' }).filter((file) => /[.]\w+$/.test(file))
    expect(files.flatMap((file) => waysOut(folder, join(folder, 'dist', file)))).toEqual([])
  })

  if (machines.includes(name)) return
  const readme = join(packages, name, 'README.md')
  const examples = programs(existsSync(readme) ? readFileSync(readme, 'utf8') : '')

  test('its README has a program', () => expect(examples.length).toBeGreaterThan(0))

  if (examples.some(({ code }) => others.some((other) => code.includes(`'${other}'`)))) beforeAll(() => addOthers(project))
  beforeAll(() => addPeers(project, name))

  test.each(examples.map((example, i) => ({ ...example, i })))(
    '$name of its README runs as printed',
    async ({ code, output, i }) => {
      writeFileSync(join(project, `readme-${i}.mjs`), code)
      const stdout = await node(`readme-${i}.mjs`)
      if (output !== undefined) expect(stdout).toBe(output)
    },
  )
})

/** Links the packages that programs use, and copies the files that they import, into a project. */
function addOthers(project: string): void {
  for (const other of others) {
    const link = join(project, 'node_modules', other)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(realpathSync(join(root, 'tests/node_modules', other)), link)
  }
  cpSync(join(root, 'tests/packages/readme'), project, { recursive: true })
}

/** Links the optional peers of a library, and what else of others its own tests have, into a project. */
function addPeers(project: string, name: string): void {
  const { peerDependencies = {}, devDependencies = {} } = manifests.get(name)!
  if (Object.keys(peerDependencies).every((peer) => peer.startsWith('@upcall/'))) return
  for (const peer of Object.keys({ ...peerDependencies, ...devDependencies })) {
    const link = join(project, 'node_modules', peer)
    if (peer.startsWith('@upcall/') || existsSync(link)) continue
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(realpathSync(join(packages, name, 'node_modules', peer)), link)
  }
}

/** Paths and names in a published file that a consumer has nothing under, and modules of Node without `node:`. */
function waysOut(folder: string, file: string): string[] {
  const found = (what: string) => `${relative(folder, file)}: ${what}`
  const text = readFileSync(file, 'utf8')
  const isOutside = (path: string) => relative(folder, join(dirname(file), path)).startsWith('..')
  if (file.endsWith('.map')) {
    const { sources, sourceRoot = '' } = JSON.parse(text) as { sources: string[]; sourceRoot?: string }
    return sources.filter((source) => /^[/]|^file:/.test(source) || isOutside(join(sourceRoot, source))).map(found)
  }
  const { name, dependencies, peerDependencies } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest
  const known = [name, ...Object.keys({ ...dependencies, ...peerDependencies })]
  const paths = [...text.matchAll(/(?:[.]{1,2}\/)+\w[^\s'"`,;)]*/g)].map(([path]) => path)
  const modules = [
    ...text.matchAll(/(?:^(?:import|export)\b[^'"]*|\b(?:require|import)\()(["'])([^."'][^"'\s]*)\1(?=[);\n])/gm),
  ].map(([, , module]) => module!)
  const isKnown = (module: string) => known.some((other) => module === other || module.startsWith(`${other}/`))
  return [
    ...paths.filter(isOutside),
    ...modules.filter((module) => (isBuiltin(module) ? !module.startsWith('node:') : !isKnown(module))),
    ...(/[.]d[.]c?ts$/.test(file) && text.includes('@internal') ? ['@internal'] : []),
  ].map((what) => found(String(what)))
}

describe('the declarations of all libraries', () => {
  const project = join(scratch, 'types')

  beforeAll(async () => {
    await projectWith('types', libraries)
    for (const name of libraries) addPeers(project, name)
    const all = libraries.flatMap(entriesOf).map((entry, i) => `export * as entry${i} from '${entry}'\n`)
    for (const file of ['all.mts', 'all.cts']) writeFileSync(join(project, file), all.join(''))
    const compilerOptions = { target: 'ES2022', module: 'node16', strict: true, noEmit: true, types: ['node'] }
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['all.mts', 'all.cts'] }))
    const node = realpathSync(join(root, 'node_modules/@types/node'))
    mkdirSync(join(project, 'node_modules/@types'))
    symlinkSync(node, join(project, 'node_modules/@types/node'))
  }, 180_000)

  test.each(['lowest', 'newest'])(
    'compile with the %s TypeScript, to import and to require',
    { timeout: 120_000 },
    async (which) => {
      const bin = join(root, `tests/node_modules/typescript-${which}`, 'bin/tsc')
      const { stdout } = await run(process.execPath, [bin, '-p', project]).catch((error: { stdout: string }) => error)
      expect(stdout).toBe('')
    },
  )
})

describe('the tarballs', { timeout: 120_000 }, () => {
  // Each tool exits with 1 when it finds something, and what it says is then in the message of the rejection.
  const judge = (name: string, bin: string, ...argv: string[]) =>
    run(join(root, 'node_modules/.bin', bin), [tarballs.get(name)!, ...argv]).catch(({ stdout, stderr }) => {
      throw new Error(`${bin} on ${name}:\n${stdout}${stderr}`)
    })

  test.each([...libraries, ...apps])('publint: %s', async (name) => {
    expect((await judge(name, 'publint', '--strict')).stdout).toContain('All good!')
  })

  test.each(libraries)('import and require both find the types of %s', async (name) => {
    // A dissector for Wireshark is not a module.
    const others = Object.keys(manifestOf(name).exports ?? {}).filter((entry) => entry.endsWith('.lua'))
    const without = others.flatMap((entry) => ['--exclude-entrypoints', entry])
    expect((await judge(name, 'attw', '--profile', 'node16', ...without)).stdout).toMatch(/🟢 \(CJS\)/)
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

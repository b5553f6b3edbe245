// What bundlers make of @upcall/vsock: each puts it into a program, which then runs where there is no node_modules. The package is laid
// out as npm installs it. Needs dist/, which `npm test` builds first.
import { execFile } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import webpack, { type Configuration, type Stats } from 'webpack'

const run = promisify(execFile)
const vsock = fileURLToPath(new URL('../../packages/vsock', import.meta.url))
const prebuild = `prebuilds/linux-${process.arch}/upcall_vsock.node`
const addon = [join(vsock, 'build/Release/upcall_vsock.node'), join(vsock, prebuild)].find((path) => existsSync(path))

interface Esbuild {
  build(options: object): Promise<unknown>
}
const require = createRequire(import.meta.url)
// The esbuild that builds our own packages, and the Vite that runs their tests.
const esbuild = createRequire(require.resolve('tsup'))('esbuild') as Esbuild
const vite = join(dirname(createRequire(require.resolve('vitest/package.json')).resolve('vite/package.json')), 'bin/vite.js')

// The kernel may lack AF_VSOCK: that, too, only the addon can say.
const PROGRAM = `
import { addonPath, listen } from '@upcall/vsock'
const report = (error) => console.log(error?.cause?.name === 'AddonError' ? error.message : 'loaded ' + addonPath())
listen('vsock://any:any').then((server) => server.close()).then(report, report)
`

const scratch = mkdtempSync(join(tmpdir(), 'upcall-bundle-'))
const project = join(scratch, 'project')
const installed = join(project, 'node_modules/@upcall/vsock')

/** A bundler: builds the project's program into the folder, and says the file's name. */
type Bundle = (outdir: string) => Promise<string>

const withEsbuild =
  (format: 'esm' | 'cjs', options: object = {}): Bundle =>
  async (outdir) => {
    const extension = format === 'esm' ? '.mjs' : '.cjs'
    await esbuild.build({
      ...{ absWorkingDir: project, entryPoints: { server: 'server.mjs' }, outdir, bundle: true, platform: 'node', format },
      ...{ outExtension: { '.js': extension }, logLevel: 'error', ...options },
    })
    return `server${extension}`
  }

const withVite =
  (noExternal: boolean): Bundle =>
  async (outDir) => {
    const config = { logLevel: 'error', build: { ssr: 'server.mjs', outDir }, ...(noExternal ? { ssr: { noExternal } } : {}) }
    writeFileSync(join(project, 'vite.config.mjs'), `export default ${JSON.stringify(config)}\n`)
    // Vite takes the NODE_ENV of a test run for a build's mode.
    const { NODE_ENV: _, VITEST: _also, ...env } = process.env
    await run(process.execPath, [vite, 'build'], { cwd: project, env })
    return readdirSync(outDir).find((name) => name.startsWith('server.'))!
  }

const withWebpack =
  (filename: string, options: Configuration): Bundle =>
  async (path) => {
    const settings: Configuration = { mode: 'production', target: 'node20', context: project, entry: './server.mjs', ...options }
    settings.output = { ...options.output, path, filename }
    settings.optimization = { minimize: false }
    const stats = await promisify(
      webpack as (settings: Configuration, done: (error: Error | null, stats?: Stats) => void) => void,
    )(settings)
    expect(stats?.toJson('errors-warnings')).toMatchObject({ errors: [], warnings: [] })
    return filename
  }

/** What the program prints in a folder that has nothing but the bundler's output, and what was copied to it. */
const start = (file: string, env: Record<string, string> = {}) => startWith([process.execPath, file], env)

async function startWith([command, ...argv]: [string, ...string[]], env: Record<string, string> = {}): Promise<string> {
  // The tests themselves go without the addon.
  const { UPCALL_VSOCK_ADDON: _, ...rest } = process.env
  const { stdout } = await run(command, argv, { cwd: tmpdir(), env: { ...rest, ...env }, timeout: 60_000 })
  return stdout.trim()
}

let builds = 0
/** Builds the program and takes the output to another folder, where the file now is. */
async function deploy(bundle: Bundle): Promise<string> {
  const [output, deployed] = [join(project, `out-${++builds}`), join(scratch, `deployed-${builds}`)]
  const name = await bundle(output)
  cpSync(output, deployed, { recursive: true })
  rmSync(output, { recursive: true })
  return join(deployed, name)
}

beforeAll(() => {
  mkdirSync(installed, { recursive: true })
  for (const name of ['package.json', 'dist']) cpSync(join(vsock, name), join(installed, name), { recursive: true })
  writeFileSync(join(project, 'package.json'), '{ "private": true }\n')
  writeFileSync(join(project, 'server.mjs'), PROGRAM)
  if (addon) cpSync(addon, join(installed, prebuild), { recursive: true })
})
afterAll(() => rmSync(scratch, { recursive: true }))

describe.runIf(addon)('a program that is bundled', { timeout: 180_000 }, () => {
  test.each<[string, Bundle]>([
    ['esbuild, as a module', withEsbuild('esm')],
    ['esbuild, as CommonJS', withEsbuild('cjs')],
    ['Vite for SSR, with nothing external', withVite(true)],
    ['webpack, as CommonJS', withWebpack('server.cjs', {})],
    ['webpack, as a module', withWebpack('server.mjs', { experiments: { outputModule: true }, output: { module: true } })],
  ])('by %s says what to copy and where, and loads that, or what a variable names', async (_bundler, bundle) => {
    const file = await deploy(bundle)
    // webpack writes the place of each source file into the program.
    renameSync(project, `${project}-elsewhere`)
    try {
      const lacking = await start(file)
      const [, from, to] = /This is a bundle, .*: copy (\S+) to (\S+), or set UPCALL_VSOCK_ADDON /.exec(lacking) ?? [lacking]
      expect([from, to]).toEqual([`node_modules/@upcall/vsock/${prebuild}`, join(dirname(file), prebuild)])
      expect(await start(file, { UPCALL_VSOCK_ADDON: addon! })).toBe(`loaded ${addon}`)
      cpSync(join(`${project}-elsewhere`, from!), to!, { recursive: true })
      expect(await start(file)).toBe(`loaded ${to}`)
    } finally {
      renameSync(`${project}-elsewhere`, project)
    }
  })

  test.each(['esm', 'cjs'] as const)(
    "by esbuild brings the addon as %s, where an entry point names the package's file",
    async (format) => {
      const entryPoints = { server: 'server.mjs', [prebuild.replace('.node', '')]: `@upcall/vsock/${prebuild}` }
      const file = await deploy(withEsbuild(format, { entryPoints, loader: { '.node': 'copy' } }))
      expect(await start(file)).toBe(`loaded ${join(dirname(file), prebuild)}`)
    },
  )

  test('by Vite for SSR leaves the package in node_modules by default', async () => {
    const output = join(project, 'out-external')
    const file = join(output, await withVite(false)(output))
    expect(readFileSync(file, 'utf8')).toMatch(/from ?["']@upcall\/vsock["']/)
    expect(await start(file)).toBe(`loaded ${join(installed, prebuild)}`)
  })

  test.each(['import', 'require'])('may name the files of the addon to %s', async (how) => {
    const name = `@upcall/vsock/${prebuild}`
    const ask =
      how === 'import' ? `fileURLToPath(import.meta.resolve('${name}'))` : `createRequire(import.meta.url).resolve('${name}')`
    const file = join(project, `${how}.mjs`)
    writeFileSync(
      file,
      `import { createRequire } from 'node:module'\nimport { fileURLToPath } from 'node:url'\nconsole.log(${ask})\n`,
    )
    expect(await start(file)).toBe(join(installed, prebuild))
  })

  // An older Node needs another program that puts the bundle into it.
  test.runIf(Number.parseInt(process.versions.node, 10) >= 26)('into one executable loads the addon beside that', async () => {
    const folder = dirname(await deploy(withEsbuild('cjs')))
    const [config, output] = [join(folder, 'sea.json'), join(folder, 'server')]
    writeFileSync(config, JSON.stringify({ main: join(folder, 'server.cjs'), output, disableExperimentalSEAWarning: true }))
    await run(process.execPath, ['--build-sea', config])
    expect(await startWith([output])).toContain(`copy node_modules/@upcall/vsock/${prebuild} to ${join(folder, prebuild)}, `)
    cpSync(addon!, join(folder, prebuild), { recursive: true })
    expect(await startWith([output])).toBe(`loaded ${join(folder, prebuild)}`)
  })
})

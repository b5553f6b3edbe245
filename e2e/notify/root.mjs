import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { makeExt4 } from '@upcall/qemu'

const execute = promisify(execFile)
/** The first release of Debian whose systemd says over vsock that it has booted; bookworm has 252. */
const SUITE = 'trixie'
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
/** What systemd depends on for its installation alone. */
const UNUSED =
  /^(cdebconf|debconf|libdebian-installer4|libnewt0\.52|libslang2|libtextwrap1|libreadline8t64|readline-common|libtinfo6)$/
const KINDS = ['recommends', 'suggests', 'conflicts', 'breaks', 'replaces', 'enhances']
/** Lists of packages that are older are fetched again. */
const FRESH_MS = 24 * 3_600_000

/**
 * The disk of a guest whose first process is systemd as Debian has it, with `files` (path → text) on top. Packages are downloaded and unpacked,
 * not installed, and kept in `cacheDir`. Resolves with systemd's version.
 */
export async function makeSystemdDisk({ cacheDir, disk, files }) {
  const apt = await aptOf(join(cacheDir, `apt-${SUITE}`))
  const without = KINDS.map((kind) => `--no-${kind}`)
  const { stdout: tree } = await apt('apt-cache', [
    'depends',
    '--recurse',
    '--important',
    ...without,
    'systemd',
    'busybox-static',
  ])
  const names = [...new Set(tree.match(/^[a-z0-9][a-z0-9+.-]*$/gm))].filter((name) => !UNUSED.test(name)).sort()
  const debs = await download(apt, names, join(cacheDir, 'packages'))
  const root = mkdtempSync(join(cacheDir, 'build-'))
  try {
    for (const deb of debs) await execute('dpkg-deb', ['-x', deb, root])
    furnish(root, files)
    await makeExt4(root, disk)
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
  return /\/systemd_([^_-]+)/.exec(debs.join('\n'))[1]
}

/** apt for another release than this machine's, without a change to this machine: with lists of its own, from the same mirror. */
async function aptOf(state) {
  const sources = join(state, 'sources.list')
  const settings = {
    'APT::Architectures': 'amd64',
    'APT::Sandbox::User': '',
    'Dir::State': state,
    'Dir::State::lists': join(state, 'lists'),
    'Dir::State::status': join(state, 'status'),
    'Dir::Cache': join(state, 'cache'),
    'Dir::Etc::sourcelist': sources,
    'Dir::Etc::sourceparts': '/dev/null',
  }
  const options = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`])
  const apt = (tool, args, more) => execute(tool, [...options, ...args], { maxBuffer: 64 << 20, timeout: 300_000, ...more })
  if (existsSync(join(state, 'done')) && Date.now() - statSync(join(state, 'done')).mtimeMs < FRESH_MS) return apt
  for (const path of ['lists/partial', 'cache/archives/partial']) mkdirSync(join(state, path), { recursive: true })
  writeFileSync(join(state, 'status'), '')
  const signed = existsSync(KEYRING) ? `[signed-by=${KEYRING}] ` : ''
  writeFileSync(sources, `deb ${signed}${await mirror()} ${SUITE} main\n`)
  await apt('apt-get', ['update', '-q'])
  writeFileSync(join(state, 'done'), '')
  return apt
}

/** Where this machine's own apt finds Debian's main archive. */
async function mirror() {
  const format = ['--format', '$(REPO_URI)', 'Created-By: Packages', 'Origin: Debian', 'Component: main']
  const { stdout } = await execute('apt-get', ['indextargets', ...format])
  const uris = stdout.split('\n').filter((uri) => uri !== '' && !/security|backports/.test(uri))
  if (uris.length === 0) throw new Error('apt knows no mirror of Debian. Add one to its sources.')
  return uris[0]
}

/** Paths of the package files; those that the cache has already are not fetched. */
async function download(apt, names, packages) {
  mkdirSync(packages, { recursive: true })
  const work = mkdtempSync(join(packages, 'download-'))
  try {
    const { stdout } = await apt('apt-get', ['download', '--print-uris', ...names], { cwd: work })
    const files = [...stdout.matchAll(/^'.*' (\S+\.deb) \d+ /gm)].map(([, file]) => file)
    const lacking = files.filter((file) => !existsSync(join(packages, file)))
    // apt checks each file against its signed list.
    if (lacking.length > 0)
      await apt('apt-get', ['download', '-q', ...lacking.map((file) => file.slice(0, file.indexOf('_')))], { cwd: work })
    for (const file of lacking) renameSync(join(work, file), join(packages, file))
    return files.map((file) => join(packages, file))
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** Units without use here. Each of them takes an emulated guest part of a second. */
const MASKED = [
  ...[
    'dev-hugepages.mount',
    'dev-mqueue.mount',
    'kmod-static-nodes.service',
    'sys-fs-fuse-connections.mount',
    'sys-kernel-config.mount',
  ],
  ...['sys-kernel-debug.mount', 'sys-kernel-tracing.mount', 'proc-sys-fs-binfmt_misc.automount', 'systemd-update-done.service'],
  ...['systemd-journald.service', 'systemd-journald.socket', 'systemd-journald-dev-log.socket', 'systemd-journal-flush.service'],
  ...[
    'systemd-modules-load.service',
    'systemd-network-generator.service',
    'systemd-random-seed.service',
    'systemd-remount-fs.service',
  ],
  ...[
    'systemd-sysctl.service',
    'systemd-sysusers.service',
    'systemd-tmpfiles-setup.service',
    'systemd-tmpfiles-setup-dev.service',
  ],
  ...['systemd-tmpfiles-setup-dev-early.service', 'systemd-tmpfiles-clean.timer', 'systemd-ask-password-console.path'],
  ...['systemd-ask-password-wall.path', 'systemd-machine-id-commit.service', 'systemd-firstboot.service', 'getty.target'],
]

/** What Debian's packages leave to the installation. */
function furnish(root, files) {
  for (const path of ['usr/share', 'usr/lib/x86_64-linux-gnu/gconv']) rmSync(join(root, path), { recursive: true, force: true })
  for (const path of ['dev', 'proc', 'root', 'run', 'sys', 'sysroot', 'tmp', 'var'])
    mkdirSync(join(root, path), { recursive: true })
  for (const name of ['bin', 'lib', 'lib64', 'sbin'])
    if (!existsSync(join(root, name))) symlinkSync(`usr/${name}`, join(root, name))
  symlinkSync('busybox', join(root, 'usr/bin/sh'))
  for (const unit of MASKED) write(root, `etc/systemd/system/${unit}`, null)
  write(root, 'etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000:guest:/:/bin/sh\n')
  write(root, 'etc/group', 'root:x:0:\nguest:x:1000:\n')
  write(root, 'etc/hostname', 'guest\n')
  write(root, 'etc/machine-id', '')
  for (const [path, text] of Object.entries(files)) write(root, path, text)
}

/** null: a link to /dev/null, which masks a unit. */
function write(root, path, text) {
  mkdirSync(dirname(join(root, path)), { recursive: true })
  if (text === null) symlinkSync('/dev/null', join(root, path))
  else writeFileSync(join(root, path), text, { mode: text.startsWith('#!') ? 0o755 : 0o644 })
}

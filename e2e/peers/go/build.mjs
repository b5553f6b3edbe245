import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { built, missingPeerTools, runTool } from '../tools.mjs'

const source = (name) => fileURLToPath(new URL(name, import.meta.url))
const VSOCK = 'github.com/mdlayher/vsock'
/** What go.mod asks for. */
const OLDEST = [1, 26]
/** Static: they run in a guest as they are. `local`: with the Go that is installed, or not at all. */
const env = { CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOFLAGS: '-trimpath -buildvcs=false' }

/** Why the programs cannot be built here, and how to get what is missing; undefined if they can. */
export async function missingForGo() {
  const missing = missingPeerTools('go')
  if (missing) return missing
  const version = (await runTool('go', ['env', 'GOVERSION'], { env })).trim()
  const [major, minor] = version.slice('go'.length).split('.').map(Number)
  const [oldMajor, oldMinor] = OLDEST
  if (major > oldMajor || (major === oldMajor && minor >= oldMinor)) return undefined
  return `${version} is too old. Install Go ${OLDEST.join('.')} or later, as https://go.dev/doc/install says.`
}

/** How the tests of mdlayher/vsock connect their two ends: over CID 1. */
const PIPE = ['return vsock.ListenContextID(vsock.Local, 0, nil) },\n\t\tfunc(', 'return vsock.Dial(a.ContextID, a.Port, nil)']
/** The same as the environment says, with a relay in between. */
const RELAYED = [
  'return vsock.Listen(told("UPCALL_LISTEN_PORT"), nil) },\n\t\tfunc(',
  '_ = a\n\t\t\treturn vsock.Dial(told("UPCALL_DIAL_CID"), told("UPCALL_DIAL_PORT"), nil)',
]
const TOLD = `
func told(name string) uint32 {
	value, err := strconv.ParseUint(os.Getenv(name), 10, 32)
	if err != nil {
		panic(err)
	}
	return uint32(value)
}
`

/**
 * The paths of our Go programs, `peer` and `testconn`, and of the tests of mdlayher/vsock: as they are, and with a relay between the ends.
 * They are built if their sources have changed.
 */
export async function goPrograms() {
  const sources = ['go.mod', 'go.sum', 'peer', 'testconn', 'build.mjs'].map(source)
  const folder = await built({
    ...{ name: 'go', sources, tool: 'go', salt: JSON.stringify(env) },
    async build({ output, work }) {
      for (const each of sources) cpSync(each, join(work, each.slice(source('.').length)), { recursive: true })
      await runTool('go', ['build', '-o', join(output, 'peer'), './peer'], { cwd: work, env })
      await runTool('go', ['test', '-c', '-o', join(output, 'testconn'), './testconn'], { cwd: work, env })
      await buildTestsOfVsock(work, output)
    },
  })
  const path = (name) => join(folder, name)
  return { peer: path('peer'), testConn: path('testconn'), vsockTests: path('vsock-tests'), relayedTests: path('relayed-tests') }
}

/** In a copy of the module, which may be changed. Its go.sum has what its tests need. */
async function buildTestsOfVsock(work, output) {
  const { Dir } = JSON.parse(await runTool('go', ['mod', 'download', '-json', VSOCK], { cwd: work, env }))
  const cwd = join(work, 'vsock')
  for (const entry of readdirSync(Dir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())) {
    const folder = join(cwd, relative(Dir, entry.parentPath ?? entry.path))
    mkdirSync(folder, { recursive: true })
    // Not by a copy: its files are read-only.
    writeFileSync(join(folder, entry.name), readFileSync(join(entry.parentPath ?? entry.path, entry.name)))
  }
  const build = (name) => runTool('go', ['test', '-c', '-o', join(output, name), '.'], { cwd, env })
  await build('vsock-tests')
  const file = join(cwd, 'integration_linux_test.go')
  let text = readFileSync(file, 'utf8')
  for (const [i, line] of PIPE.entries()) {
    if (!text.includes(line)) throw new Error(`${file} has no line ${line}`)
    text = text.replace(line, RELAYED[i])
  }
  writeFileSync(file, text + TOLD)
  await build('relayed-tests')
}

import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { built, missingPeerTools, runTool } from '../tools.mjs'

const source = (name) => fileURLToPath(new URL(name, import.meta.url))
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

/** The paths of our Go programs, `peer` and `testconn`, built if their sources have changed. */
export async function goPrograms() {
  const sources = ['go.mod', 'go.sum', 'peer', 'testconn'].map(source)
  const folder = await built({
    ...{ name: 'go', sources, tool: 'go', salt: JSON.stringify(env) },
    async build({ output, work }) {
      for (const each of sources) cpSync(each, join(work, each.slice(source('.').length)), { recursive: true })
      await runTool('go', ['build', '-o', join(output, 'peer'), './peer'], { cwd: work, env })
      await runTool('go', ['test', '-c', '-o', join(output, 'testconn'), './testconn'], { cwd: work, env })
    },
  })
  return { peer: join(folder, 'peer'), testConn: join(folder, 'testconn') }
}

import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { built, runTool } from '../tools.mjs'

const source = (name) => fileURLToPath(new URL(name, import.meta.url))
/** Static: they run in a guest as they are. `local`: with the Go that is installed, or not at all. */
const env = { CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOFLAGS: '-trimpath -buildvcs=false' }

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

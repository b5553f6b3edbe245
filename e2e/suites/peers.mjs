// Programs that others wrote, against ours: Rust, Go and Python, on the host and in a guest. Each part is a module with
// `tools`, the programs that it needs, and `run(checks, image, options)`, where `options.small` asks for the short form.
import { missingPeerTools } from '../peers/tools.mjs'

const parts = {
  rust: () => import('../peers/rust.mjs'),
  go: () => import('../peers/go.mjs'),
  python: () => import('../peers/python.mjs'),
}

export async function run(checks, image, options = {}) {
  const { part: only } = options
  if (only !== undefined && !Object.hasOwn(parts, only))
    throw new Error(`--part is ${JSON.stringify(only)}; there are ${Object.keys(parts).join(', ')}`)
  for (const [name, load] of Object.entries(parts)) {
    if (only !== undefined && only !== name) continue
    const part = await load()
    const reason = missingPeerTools(...(part.tools ?? []))
    if (reason) {
      console.log(`# peers, ${name}: left out: ${reason}`)
      continue
    }
    await part.run(checks, image, options)
  }
}

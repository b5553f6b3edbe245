import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as netConnect } from 'node:net'
import { fileURLToPath } from 'node:url'
import { until } from './scene.mjs'

const README = new URL('../../packages/vhost-user/README.md', import.meta.url)

/** The first program of the README as it stands there, but for its folder and the image that is there already; then its last line. */
export async function readmeProgram({ folder, image }) {
  const [, program] = /```js\n([\s\S]*?)```/.exec(readFileSync(README, 'utf8'))
  const lines = program
    .trim()
    .split('\n')
    .filter((line) => !line.startsWith('//'))
  assert.ok(lines.length <= 10, `${lines.length} lines`)
  const source = replaced(
    replaced(program, /await buildGuestImage\(.*\)/, JSON.stringify(image)),
    /\/tmp\/vm\./g,
    `${folder}/readme.`,
  )
  const child = spawn(process.execPath, ['--input-type=module', '--eval', source], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const [said] = await once(child.stdout, 'data', { signal: AbortSignal.timeout(120_000) })
    assert.match(String(said), /CONNECT 5000/)
    // Its last line comes when socat starts; a person who types is slower than socat.
    await until('a connection', () => echoes(`${folder}/readme.vsock`), { everyMs: 200, timeoutMs: 60_000 })
  } finally {
    const closed = once(child, 'close')
    child.kill()
    await closed
  }
  return `${lines.length} lines, and the guest echoes`
}

/** False if there is no listener in the guest: then the connection ends without a word. */
async function echoes(path) {
  const socket = netConnect(path).on('error', () => {})
  try {
    const answer = async (text) => {
      socket.write(text)
      const [chunk] = await Promise.race([once(socket, 'data', { signal: AbortSignal.timeout(30_000) }), once(socket, 'end')])
      return chunk === undefined ? undefined : String(chunk)
    }
    const reply = await answer('CONNECT 5000\n')
    if (reply === undefined) return false
    assert.match(reply, /^OK \d+\n$/)
    assert.equal(await answer('hello'), 'hello')
    return true
  } finally {
    socket.destroy()
  }
}

function replaced(text, pattern, by) {
  const result = text.replace(pattern, by)
  assert.notEqual(result, text, `the README has no ${pattern}`)
  return result
}

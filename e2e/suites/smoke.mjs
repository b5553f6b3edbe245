// The ground under the other end-to-end tests: the image is made, guests boot, results and failures come back, nothing is left behind.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { runInGuest, startInGuest } from '@upcall/qemu'
import { knownClock } from '../known-clock.mjs'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const boots = []
let image

export async function run(checks, guestImage) {
  image = guestImage
  const log = await checks.check('q35: Node runs in the guest and reports', () => node('q35'))
  await checks.check('pc: Node runs in the guest and reports', () => node('pc'))
  await checks.check('microvm: Node runs in the guest and reports', () => node('microvm', { append: knownClock(log) }))
  await checks.check('128 MB of memory are enough for Node', () => node('q35', { memory: '128M' }))
  await checks.check('the host talks QMP to a guest whose command runs', qmp)
  await checks.check('a command that hangs ends at its deadline, with the console', hang)
  await checks.check('a command that is not there gives status 127', notFound)
  await checks.check('a kernel panic ends the wait at once, with the console', panic)
  await checks.check('QEMU dies with its owner, even when the owner is killed', killedOwner)
  console.log('\nboot times under tcg, in milliseconds from the start of QEMU:')
  console.table(boots)
}

async function node(machine, options = {}) {
  const env = { ODD: `it's "odd" $HOME` }
  const command = ['node', 'main.mjs', 'an argument', '']
  const result = await runInGuest({ image, machine, payloadDir: here('../guest/smoke'), command, env, ...options })
  const { bootMs, firstLineMs, commandMs } = result.timings
  const times = { 'command starts': bootMs, 'Node speaks': bootMs + firstLineMs, 'command ends': bootMs + commandMs }
  boots.push({
    ...{ machine, memory: options.memory ?? '256M' },
    ...Object.fromEntries(Object.entries(times).map(([name, ms]) => [name, Math.round(ms)])),
    'silent boots': result.restarts.length,
  })
  const [about, given, echo, long, ...rest] = result.lines.map((line) => JSON.parse(line))
  assert.equal(about.version, process.version)
  assert.equal(about.release, image.release)
  assert.deepEqual(given, { device: true, loopback: true, args: command.slice(2), env: env.ODD })
  assert.deepEqual(echo, { echo: 'over vsock' })
  assert.equal(long.long.length, 200_000)
  assert.deepEqual(rest, [])
  assert.equal(result.exitStatus, 7)
  assert.match(result.console, /a word for the console/)
  return result.console
}

async function qmp() {
  // Answers every line from the host in capitals.
  const command = ['sh', '-c', 'while read -r line; do echo "$line" | tr a-z A-Z; done <>/dev/virtio-ports/org.upcall.chat']
  const answers = new EventEmitter()
  const onLine = (line) => answers.emit('line', line)
  const run = await startInGuest({ image, command, ports: ['org.upcall.chat'], maxCpus: 2, onLine })
  try {
    const { qmp } = run.guest
    assert.equal((await qmp.execute('query-status')).status, 'running')
    assert.equal((await qmp.execute('query-hotpluggable-cpus')).length, 2)
    const stopped = qmp.nextEvent('STOP', { timeoutMs: 5000 })
    await qmp.execute('stop')
    await stopped
    await qmp.execute('cont')
    const answer = once(answers, 'line', { signal: AbortSignal.timeout(10_000) })
    run.guest.port('org.upcall.chat').write('hello\n')
    assert.deepEqual(await answer, ['HELLO'])
    await qmp.execute('quit')
    await assert.rejects(run.result, { code: 'EXITED' })
  } finally {
    await run.close()
  }
}

async function hang() {
  const command = ['sh', '-c', 'echo so far; echo to the console >&2; sleep 1000']
  const run = await startInGuest({ image, command, timeoutMs: 3000 })
  try {
    const error = await run.result.catch((error) => error)
    assert.equal(error.code, 'DEADLINE')
    assert.match(error.message, /to the console/)
    assert.match(error.message, /result: so far/)
    assert.throws(() => process.kill(run.guest.pid, 0), { code: 'ESRCH' })
  } finally {
    await run.close()
  }
}

async function notFound() {
  assert.equal((await runInGuest({ image, command: ['no-such-program'] })).exitStatus, 127)
}

async function panic() {
  const error = await runInGuest({ image, command: ['true'], append: 'rdinit=/none' }).catch((error) => error)
  assert.equal(error.code, 'PANIC')
  assert.match(error.message, /Kernel panic/)
}

async function killedOwner() {
  const owner = spawn(process.execPath, [here('../owner.mjs'), image.kernel], { stdio: ['ignore', 'pipe', 'inherit'] })
  const pid = Number(String((await once(owner.stdout, 'data'))[0]))
  process.kill(pid, 0)
  owner.kill('SIGKILL')
  await once(owner, 'exit')
  for (let tries = 0; tries < 100; tries++) {
    try {
      process.kill(pid, 0)
    } catch {
      return
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  process.kill(pid, 'SIGKILL')
  assert.fail(`QEMU ${pid} outlived its owner`)
}

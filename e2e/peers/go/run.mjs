import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { passed, TEST_CONN } from '../../guest/go-tests.mjs'
import { UPCALL } from '../../upcall.mjs'
import { Program } from '../program.mjs'

const DEADLINE_MS = 120_000

/** Runs a program to its end, and resolves with its status and what it wrote. */
export async function finish(command, args, { env } = {}) {
  const child = spawn(command, args, {
    ...{ env: { ...process.env, ...env }, timeout: DEADLINE_MS, killSignal: 'SIGKILL' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [stdout, stderr] = [[], []]
  child.stdout.on('data', (chunk) => stdout.push(chunk))
  child.stderr.on('data', (chunk) => stderr.push(chunk))
  const [status, signal] = await once(child, 'close')
  return { status: status ?? signal, stdout: String(Buffer.concat(stdout)), stderr: String(Buffer.concat(stderr)) }
}

/** What `peer dial` tells of its exercise. */
export async function dialWith(peer, address, exercise, bytes) {
  const { status, stdout, stderr } = await finish(peer, ['dial', address, exercise, String(bytes)])
  assert.equal(status, 0, `${exercise}: ${stdout}${stderr}`)
  return JSON.parse(stdout)
}

/** Runs the tests that are named and resolves with the names of those that passed. */
export async function testConn(program, env, tests = TEST_CONN) {
  const { stdout, stderr } = await finish(program, ['-test.v', `-test.run=^TestConn$/^(${tests.join('|')})$`], { env })
  assert.deepEqual(passed(stdout, 'TestConn/'), tests, `${stdout}${stderr}`)
}

/** `upcall vsock forward`, listening; its events are the values of the program. */
export async function startForward(...args) {
  const forward = new Program(process.execPath, [UPCALL, '--json', 'vsock', 'forward', ...args])
  try {
    await forward.next(({ event }) => event === 'listening')
    return forward
  } catch (error) {
    await forward.stop()
    throw error
  }
}

/** The connections that `forward` told the end of, the next `count` of them. */
export async function ends(forward, count) {
  const ended = []
  while (ended.length < count) ended.push(await forward.next(({ event }) => event === 'disconnect'))
  return ended
}

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { isVsockError, listen } from '@upcall/vsock'

/** For one test; emulation is slow. */
export const TIMEOUT = { timeout: 120_000 }

/** Starts a program that ends with the test, and resolves when it says on `stream` that it is ready. */
export async function start(t, command, { ready, stream = 'stdout', ...options } = {}) {
  const child = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'pipe'], ...options })
  const exited = once(child, 'exit')
  t.after(async () => {
    child.kill('SIGKILL')
    await exited
  })
  const said = []
  for (const output of [child.stdout, child.stderr]) output?.on('data', (chunk) => said.push(chunk))
  if (ready) await spoken(child[stream], ready, () => Buffer.concat(said))
  return { child, exited, said: () => String(Buffer.concat(said)) }
}

async function spoken(stream, pattern, said) {
  for await (const line of createInterface({ input: stream })) if (pattern.test(line)) break
  // It is no longer read line by line, but it has to flow.
  stream.resume()
  if (!pattern.test(String(said()))) throw new Error(`the program ended before it said ${pattern}: ${said()}`)
}

/** A program of this folder in a process of its own. */
export function startNode(t, program, options) {
  return start(t, [process.execPath, join(import.meta.dirname, program), ...(options.args ?? [])], options)
}

/** Runs a program to its end. */
export async function finish(t, command, { input = '', ...options } = {}) {
  const child = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'pipe'], ...options })
  const exited = once(child, 'close')
  t.after(() => child.kill('SIGKILL'))
  const [out, err] = [child.stdout, child.stderr].map((stream) => {
    const chunks = []
    stream.on('data', (chunk) => chunks.push(chunk))
    return chunks
  })
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  const [status] = await exited
  return { status, stdout: String(Buffer.concat(out)), stderr: String(Buffer.concat(err)) }
}

/** A server that sends back what it gets, closed with the test. */
export async function echoServer(t, address = 'vsock://local:any', options = {}) {
  const server = await listen(address, options)
  server.on('connection', (socket) => socket.on('error', () => {}).pipe(socket))
  t.after(async () => {
    server.closeAllConnections()
    await server.close()
  })
  return server
}

/** Everything up to EOF. */
export async function readAll(stream) {
  const chunks = []
  stream.on('data', (chunk) => chunks.push(chunk))
  await once(stream, 'end')
  return Buffer.concat(chunks)
}

/** For assert.rejects: a VsockError with this code, and the kernel's own errno as its cause. */
export function vsockError(code, errno, { retryable, op = 'connect', says } = {}) {
  return (error) => {
    const told = { vsockError: isVsockError(error), code: error.code, errno: error.cause?.code, op: error.op }
    const expected = { vsockError: true, code, errno, op }
    const wrong = JSON.stringify(told) !== JSON.stringify(expected)
    if (wrong) throw new Error(`expected ${JSON.stringify(expected)}, got ${JSON.stringify(told)}`, { cause: error })
    if (retryable !== undefined && error.retryable !== retryable)
      throw new Error(`retryable is ${error.retryable}`, { cause: error })
    if (says && !says.test(error.message)) throw new Error(`the message lacks ${says}: ${error.message}`)
    return true
  }
}

export function openDescriptors() {
  return readdirSync('/proc/self/fd').length
}

/** Takes a module away. The kernel closes a connection for good some seconds after its descriptors. */
export async function unload(module) {
  for (;;) {
    const references = Number(new RegExp(`^${module} \\d+ (\\d+)`, 'm').exec(readFileSync('/proc/modules', 'utf8'))?.[1] ?? 0)
    if (references === 0) break
    await delay(100)
  }
  execFileSync('rmmod', [module])
}

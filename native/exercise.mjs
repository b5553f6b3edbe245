// What the exercises of all addons have in common. Plain JavaScript, since they also run on another machine's Node under qemu-user, and
// under valgrind.
import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'

const path = isMainThread ? process.argv[2] : workerData.path

/** The functions of the addon that the command line names; in a thread, of the same one. */
export function loadAddon() {
  const addon = { exports: {} }
  process.dlopen(addon, path)
  return addon.exports
}

/** An address of AF_UNIX in Linux's abstract namespace. */
export function abstractAddress(binding, name = `upcall-exercise-${process.pid}-${Math.random()}`) {
  const bytes = Buffer.alloc(3 + name.length)
  new Uint16Array(bytes.buffer, bytes.byteOffset, 1)[0] = binding.AF_UNIX
  bytes.write(name, 3)
  return bytes
}

/** Waits for one readiness of a descriptor. */
export function ready(binding, descriptor, events) {
  return new Promise((resolve) => {
    binding.watch(descriptor, events, (seen) => {
      binding.unwatch(descriptor)
      resolve(seen)
    })
  })
}

/** Resolves after everything is collected that can be. */
export async function collected() {
  setFlagsFromString('--expose-gc')
  const collectGarbage = runInNewContext('gc')
  for (let i = 0; i < 10; i++) {
    collectGarbage()
    await turn()
  }
}

/** Runs the program `url` in a thread, which ends in each of the two ways a thread can. */
export async function endThreads(url) {
  for (const end of ['terminate', 'exit']) {
    const worker = new Worker(fileURLToPath(url), { workerData: { path, end } })
    // A message that is still in the port when the thread ends comes in the same turn as 'exit'.
    const exited = once(worker, 'exit')
    await once(worker, 'message')
    if (end === 'terminate') await worker.terminate()
    await exited
  }
}

/** Runs the checks, by name; in a thread of `endThreads` only `prepare`, which opens what the end of the thread has to close. */
export async function exercise(checks, prepare) {
  if (!isMainThread) {
    await prepare()
    parentPort.postMessage('ready')
    if (workerData.end === 'exit') process.exit(0)
    return
  }
  // The first timer, thread and file of a process open descriptors that stay.
  await new Promise((resolve) => setTimeout(resolve, 1))
  let done = 0
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check()
      done++
    } catch (error) {
      console.error(`exercise: ${name}:`, error)
      process.exit(1)
    }
  }
  console.log(`passed ${done} checks on Node ${process.versions.node} ${process.arch}`)
}

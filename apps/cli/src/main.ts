#!/usr/bin/env node
import { setMaxListeners } from 'node:events'
import process from 'node:process'
import { Exit, Interrupted, OutputError } from './exit.js'
import { run } from './run.js'

/** Two signals within so short a time are one that came twice; behind it a Ctrl-C is a person's who does not want to wait. */
const TWICE_MS = 500

const interrupt = new AbortController()
// As many listen as there are connections, which Node would take for a leak.
setMaxListeners(0, interrupt.signal)
const hurry = new AbortController()
let interruptedAt: number | undefined
// Every signal is taken up to the end, so that none cuts the orderly one short: timeout(1) and npx, for two, send theirs twice.
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    const now = performance.now()
    interruptedAt ??= now
    interrupt.abort(new Interrupted(signal))
    if (signal === 'SIGINT' && now - interruptedAt >= TWICE_MS) hurry.abort()
  })
// A reader that has seen enough, as in `upcall … | head -1`.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') return interrupt.abort(new Interrupted('SIGPIPE'))
  const failure = new OutputError(error)
  process.stderr.write(`upcall: ${failure.message}\n`)
  interrupt.abort(failure)
  // Told of the last write only when the command is through, as with --help: otherwise `run` comes to the same.
  process.exitCode = Exit.indeterminate
})

process.exitCode = await run(process.argv.slice(2), {
  get stdin() {
    return process.stdin
  },
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signal: interrupt.signal,
  hurry: hurry.signal,
})

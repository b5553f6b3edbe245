#!/usr/bin/env node
import process from 'node:process'
import { messageFor } from '@upcall/foundation/error'
import { separateExec } from './commands/vsock/options.js'
import { Interrupted, OutputError } from './errors.js'
import { placeOf, placeText } from './errors-page.js'
import { Exit } from './exit.js'
import { Interruption } from './interruption.js'
import { isVerbose, run } from './run.js'

const interruption = new Interruption(() => performance.now())
// Every signal is taken up to the end, so that none cuts the orderly one short: timeout(1) and npx, for two, send theirs twice.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interruption.receive(signal))
// A reader that has seen enough, as in `upcall … | head -1`.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') return interruption.end(new Interrupted('SIGPIPE'))
  const failure = new OutputError(error)
  process.stderr.write(`upcall: ${messageFor(failure)}\n`)
  if (isVerbose(separateExec(process.argv.slice(2)).own)) process.stderr.write(`        ${placeText(placeOf([failure.code]))}\n`)
  interruption.end(failure)
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
  signal: interruption.signal,
  hurry: interruption.hurry,
  onHangUp(fn) {
    process.on('SIGHUP', fn)
    return () => process.off('SIGHUP', fn)
  },
})

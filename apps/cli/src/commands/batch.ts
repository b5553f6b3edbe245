import { type DeviceManager, describeRequest, parseOperation } from '@upcall/device-manager'
import { formatAddress } from '@upcall/vsock'
import type { Arch, Request } from '@upcall/wire'
import type { Command } from 'commander'
import type { Action, Context } from '../context.js'
import { UsageError } from '../errors.js'
import { Exit } from '../exit.js'
import { type Line, linesOf, readInput } from '../input.js'
import { Output } from '../output.js'
import { failed, type Report, reportStatus, reportText } from '../report.js'
import { openManager, perform } from '../session.js'

/** No operation comes near it: the longest load has 2016 digits. */
const LONGEST_LINE = 65_536

interface BatchOptions {
  stopOnError?: boolean
}

export function addBatchCommand(program: Command, action: Action): void {
  program
    .command('batch')
    .description('read operations as JSON lines and run them through one client; print one JSON object for each, in order')
    .argument('[file]', 'where the operations are; without it, or for -, stdin')
    .option('--stop-on-error', 'stop after the first operation that is not ok')
    .addHelpText(
      'after',
      `
Operations:
  {"op":"cpu.add","apicIds":[2,3]}        {"op":"cpu.remove","apicIds":[3]}      aarch64: {"op":"cpu.add","count":2}
  {"op":"mmio.add","base":"0xd0000000","size":"0x1000","irq":5}                  {"op":"mmio.remove",…}
  {"op":"pci.add","bdf":"00:05.0"}        {"op":"pci.remove","bdf":"00:05.0"}    {"op":"request","type":3,"load":"00"}

Each answer names its line. --timeout limits each operation. If the connection is lost, the next line makes a new one.
Exit status of several failures: the first of 2 (bad line), 4 (indeterminate), 3 (not-sent), 1 (guest-error).

Examples:
  $ upcall --target hvsock:///run/vm.sock:219 batch operations.jsonl
  $ echo '{"op":"pci.add","bdf":"00:05.0"}' | upcall --target unix:/run/guest.sock batch --stop-on-error`,
    )
    .action(action(batch))
}

async function batch(context: Context, { stopOnError = false }: BatchOptions, file?: string): Promise<void> {
  const { io, target, arch, timeoutMs } = context
  // What it prints is JSON whether or not --json was given.
  const output = new Output(io, true, context.options.verbose)
  let manager: DeviceManager<Arch> | undefined
  try {
    for await (const line of linesOf(readInput(file, io), LONGEST_LINE)) {
      if (line.text?.trim() === '') continue
      const report = { line: line.number, ...(await answer(line)) }
      const status = reportStatus(report)
      context.exit.add(status)
      await output.result(report, (paint) => reportText(report, report.op ?? '', paint))
      if (io.signal.aborted || (stopOnError && status !== Exit.ok)) return
    }
  } finally {
    await manager?.close()
  }

  async function answer(line: Line): Promise<Report> {
    let request: Request
    try {
      if (line.text === undefined)
        throw new UsageError(`line ${line.number}`, `longer than ${LONGEST_LINE} bytes`, 'Write one operation per line.')
      request = parseOperation(line.text, arch)
    } catch (error) {
      return failed(opIn(line), `line ${line.number}`, error)
    }
    using _progress = context.output.progress(`line ${line.number}: ${describeRequest(request)} ${formatAddress(target)}`)
    manager ??= openManager({ target, arch, timeoutMs })
    // One attempt per operation: none waits for a guest that is gone, and all find a guest that came back.
    if (manager.state === 'ReconnectError') manager.client.reconnect()
    return perform(manager, request, { target, signal: io.signal, timeoutMs })
  }
}

/** What a line that cannot be used said it was, if it said so. */
function opIn({ text }: Line): string | undefined {
  try {
    const { op } = JSON.parse(text ?? '')
    return typeof op === 'string' ? op : undefined
  } catch {
    return undefined
  }
}

import {
  formatAddress,
  type GuestBoot,
  isVsockError,
  listenNotify,
  type NotifyMessage,
  type NotifyReceiver,
  type SeqpacketAddress,
} from '@upcall/vsock'
import { type Command, Option } from 'commander'
import type { Action, Context } from '../../context.js'
import { errorReport, UsageError } from '../../errors.js'
import { Exit } from '../../exit.js'
import { parseInteger } from '../../options.js'
import { type Report, reportText } from '../../report.js'
import { type ListenOn, parseAnyEndpoint, parseInherited } from '../../streams/endpoint.js'
import { explainStreamError, isStreamError } from '../../streams/error.js'
import { checkGlobals, checkListening, parseMode } from './options.js'

interface Options {
  cid?: number
  privileged?: boolean
  unit?: string
  keep?: boolean
  mode?: number
}

type Where = ListenOn | SeqpacketAddress

const OP = 'vsock.notify'

export function addNotifyCommand(vsock: Command, action: Action): void {
  vsock
    .command('notify')
    .description("wait until a guest's systemd says that it has booted (READY=1), and print what it tells")
    .argument('<address>', 'hvsock://<path>:<port> or vsock://any:<port>, or hvsock+seq:// or vsock+seq://')
    .addOption(
      new Option('--cid <n>', 'messages of this guest only (default: the first that says how its boot ended)').argParser(
        parseInteger,
      ),
    )
    .option('--unit <name>', 'wait until this unit is active, too, as in multi-user.target; needs systemd 256')
    .option('--privileged', 'vsock:// only: messages from ports below 1024, which no unprivileged program of the guest has')
    .option('--keep', 'go on printing after READY=1, until interrupted')
    .addOption(new Option('--mode <octal>', 'permissions of the socket file, as in 660').argParser(parseMode))
    .addHelpText(
      'after',
      `
The guest needs systemd 254 or later and the credential vmm.notify_socket. Its type is vsock-stream, or
vsock-seqpacket for an address with +seq:

  QEMU               -smbios type=11,value=io.systemd.credential:vmm.notify_socket=vsock-stream:2:<port>
  Cloud Hypervisor   --platform oem_strings=[io.systemd.credential:vmm.notify_socket=vsock-stream:2:<port>]
  others             systemd.set_credential=vmm.notify_socket:vsock-stream:2:<port> on the kernel's command line

systemd, systemd:<name> and fd:<n> as <address> are a socket that systemd or another program has opened.

Exit status: 0 the guest is ready, 1 its boot failed or it went down, 3 not ready within --timeout, or nothing to
listen on, 130 interrupted.

Examples:
  $ upcall --timeout 60s vsock notify hvsock:///run/vm.sock:9999 && deploy
  $ upcall --json vsock notify vsock://any:9999 --cid 3 --privileged --unit ssh-access.target`,
    )
    .action(action(notify))
}

async function notify(context: Context, options: Options, address: string): Promise<void> {
  const { io, output, exit } = context
  checkGlobals(context)
  const where = parseInherited(address, '<address>', io.env) ?? parseAnyEndpoint(address, '<address>')
  checkNotify(where, options)
  try {
    const { cid, privileged, mode } = options
    const receiver = await listenNotify(where, { cid, privileged, mode, signal: io.signal })
    await receive(context, options, receiver)
  } catch (error) {
    if (!isStreamError(error)) throw error
    if (io.signal.aborted) return
    const isGuests = error.code === 'GUEST_FAILED' || error.code === 'GUEST_STOPPED'
    exit.add(isGuests ? Exit.guestError : Exit.notSent)
    const heard = isVsockError(error) && error.heard ? bootReport(error.heard) : {}
    const shown = error.op === 'ready' ? errorReport(error) : explainStreamError(error)
    const report: Report = { op: OP, outcome: isGuests ? 'guest-error' : 'not-sent', error: shown }
    await output.failure({ ...report, ...heard }, (paint) => reportText(report, OP, paint))
  }
}

/** @throws UsageError */
function checkNotify(where: Where, { privileged, cid, mode }: Options): asserts where is Exclude<Where, { transport: 'tcp' }> {
  if ('transport' in where && where.transport === 'tcp')
    throw new UsageError('<address>', 'no guest connects to tcp', 'Write hvsock://<path>:<port> or vsock://any:<port>.')
  checkListening(where, { ...(mode !== undefined && { mode }) })
  const isVsock = !('transport' in where) || where.transport === 'vsock'
  if (privileged && !isVsock) throw new UsageError('--privileged', 'only vsock:// tells the port of the sender')
  if (cid !== undefined && cid >= 0xffffffff) throw new UsageError('--cid', 'must be below 4294967295')
}

async function receive(
  { io, output, exit, timeoutMs }: Context,
  { unit, keep }: Options,
  receiver: NotifyReceiver,
): Promise<void> {
  const { signal } = io
  const address = formatAddress(receiver.address!)
  await output.result({ event: 'listening', address }, (paint) => `${paint('green', 'listening')} on ${address}`)
  const printed = print(receiver, output)
  try {
    const boot = await receiver.ready({ unit, timeoutMs: timeoutMs ?? Number.POSITIVE_INFINITY, signal })
    const report = { op: OP, outcome: 'ok', ...bootReport(boot) }
    const tell = () => output.result(report, (paint) => `${paint('green', 'ready')}${guestText(boot.cid)}`)
    if (keep) await tell()
    else await receiver.close()
    exit.servesUntilTold = keep === true
    // With --keep up to the signal, which closes the receiver.
    await printed
    if (!keep) await tell()
  } finally {
    await receiver.close()
    await printed
  }
}

async function print(receiver: NotifyReceiver, output: Context['output']): Promise<void> {
  for await (const { fields, from } of receiver)
    await output.result({ event: 'notify', ...from, fields }, () => messageText(fields, from))
}

function messageText(fields: NotifyMessage['fields'], { cid }: NotifyMessage['from']): string {
  const text = Object.entries(fields)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ')
  // What a guest says goes to a terminal.
  return `guest${guestText(cid)}: ${text.replaceAll(/[^\x20-\x7e\u00a0-\uffff]/g, '?')}`
}

const guestText = (cid: number | undefined) => (cid === undefined ? '' : ` ${cid}`)

function bootReport({ cid, fields, units }: GuestBoot): object {
  return { ...(cid !== undefined && { cid }), fields, units }
}

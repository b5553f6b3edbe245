import { Cid, isVsockError, localCid } from '@upcall/vsock'
import type { Command, Option } from 'commander'
import type { Action, Context } from '../../context.js'
import { errorReport } from '../../errors.js'
import { Exit } from '../../exit.js'
import { type Report, reportText } from '../../report.js'
import { addConnectCommand } from './connect.js'
import { addDeviceCommand } from './device/command.js'
import { addForwardCommand } from './forward.js'
import { addListenCommand } from './listen.js'
import { addNotifyCommand } from './notify.js'
import { checkGlobals, notOfStreams } from './options.js'
import { addPassCommand } from './pass.js'

export function addVsockCommands(program: Command, action: Action): void {
  const vsock = program
    .command('vsock')
    .description('streams and messages over vsock, hybrid vsock and Unix sockets, and the vsock device of QEMU guests')
    .configureHelp({ showGlobalOptions: true, visibleGlobalOptions: streamGlobals })
    .addHelpText(
      'after',
      `
Addresses are hvsock://<path>:<port>, unix:<path>, vsock://<cid>:<port> and tcp:<host>:<port>. A missing port of
the vsock forms is 219. With +seq after the scheme, as in vsock+seq://3:1024, connect, listen and notify use a socket
for messages (SOCK_SEQPACKET).

What hvsock:// cannot do: tell the guest of EOF while the guest still has to answer. A server that waits for EOF
never answers. Use --half-close if the VMM has it (Cloud Hypervisor since 2026-06), vsock://, unix:, or a protocol
that marks its own ends.

Examples:
  $ upcall vsock connect vsock://3:1024 < request > reply
  $ ssh -o ProxyCommand='upcall vsock connect hvsock:///run/vm.sock:22' guest
  $ upcall vsock listen vsock://any:1024 --keep --exec cat
  $ upcall vsock forward tcp:8080 hvsock:///run/vm.sock:80
  $ upcall vsock pass hvsock:///run/vm.sock:1027 stdin.fifo --keep
  $ upcall vsock notify hvsock:///run/vm.sock:9999
  $ upcall vsock device --socket /tmp/vhost.socket --uds-path /tmp/vm.vsock
  $ upcall vsock cid`,
    )
  addConnectCommand(vsock, action)
  addListenCommand(vsock, action)
  addForwardCommand(vsock, action)
  addPassCommand(vsock, action)
  addNotifyCommand(vsock, action)
  addDeviceCommand(vsock, action)
  vsock
    .command('cid')
    .description("print this machine's context id")
    .addHelpText(
      'after',
      `
Inside a guest it is the guest's own, on a host 2, and 1 where there is only the loopback.
Exit status 3: there is no vsock here, or no native addon.

Examples:
  $ upcall vsock cid
  $ upcall --json vsock cid`,
    )
    .action(action(cid))
}

/** The options of the commands above it that a stream command takes. */
function streamGlobals(command: Command): Option[] {
  const all: Option[] = []
  for (let above = command.parent; above; above = above.parent) all.push(...above.options)
  return all.filter((option) => !notOfStreams.has(option.attributeName()))
}

async function cid(context: Context): Promise<void> {
  const { output, exit } = context
  const op = 'vsock.cid'
  checkGlobals(context)
  try {
    const own = localCid()
    const name = Object.entries(Cid).find(([, value]) => value === own)?.[0]
    await output.result({ op, outcome: 'ok', cid: own, ...(name && { name }) }, () => String(own))
  } catch (error) {
    if (!isVsockError(error)) throw error
    exit.add(Exit.notSent)
    const report: Report = { op, outcome: 'not-sent', error: errorReport(error) }
    await output.failure(report, (paint) => reportText(report, op, paint))
  }
}

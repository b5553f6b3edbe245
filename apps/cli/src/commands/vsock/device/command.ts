import type { Command } from 'commander'
import type { Action, Context } from '../../../context.js'
import { UsageError } from '../../../errors.js'
import { checkGlobals } from '../options.js'
import { captureTo } from './capture.js'
import { Journal } from './journal.js'
import { metricsAt } from './metrics.js'
import { addDeviceOptions, type DeviceOptions, wantedBy, wantedIn } from './options.js'
import { serveDevices } from './service.js'

export function addDeviceCommand(vsock: Command, action: Action): void {
  const command = vsock.command('device').description('be the vsock device of QEMU guests, without a kernel module or privileges')
  addDeviceOptions(command)
    .addHelpText(
      'after',
      `
QEMU connects to --socket and hands the guest's vsock over (vhost-user). The guest's memory has to be shared:
  -object memory-backend-memfd,id=mem0,size=512M,share=on -machine q35,memory-backend=mem0
  -chardev socket,id=char0,path=<socket> -device vhost-user-vsock-pci,chardev=char0
Start this command first: QEMU gives up if there is no listener.

The options up to --groups, --vm and --config are those of vhost-device-vsock 0.3.0. Lists are written with +,
as in 9001+9002, and in the file also as YAML lists; the keys of --vm and of the file may have _ in place of -.

  --uds-path <path>: a program on this machine connects to <path> and writes CONNECT <port>, for a port of the guest.
  What the guest connects to on port <port> of the host (CID 2) goes to the Unix socket <path>_<port>.
  --forward-cid <cid>: what the guest connects to goes to vsock://<cid>:<port> of this machine, whatever CID the
  guest has dialled; connections to the ports of --forward-listen, on vsock://any, go to the same port of the guest.
  Guests of one command reach each other by CID, if they share a group.

A rule of --from-guest-allow and --to-guest-allow is <peer>[:<port>[-<port>]]. The peer is host, any, a CID or
group/<name>. What no rule allows is refused, and so is what is too much. Bytes wait instead.

Several processes work on several cores. One of them has --link-listen <path>, the others have --link <path>, and the
guests of all reach each other by CID and group. --link dials for as long as the command runs, and again after a loss.
A CID may be in one process only. Linked processes trust each other: a program that may open the
socket may speak for any guest. In the file the keys link, link_listen and mode are beside vms.

SIGHUP rereads --config: devices are added, removed and changed, and those that are as before keep their
connections, also where only their rules, rates or groups have changed. So do links that are as before. If the file is
wrong, nothing changes.
--metrics <host>:<port> or --metrics <port> serves http://<host>:<port>/metrics for Prometheus: packets, bytes, connections,
credit stalls and interrupts of each guest, and what was refused. A port alone is on 127.0.0.1, and 0 is any free port.
Other machines reach it only if the host is one of their network, and there is no password.

--pcap <file> writes every packet between the guests, and between a guest and this machine, into a file that Wireshark reads:
all ports, with the virtio headers. A packet between two guests is there once, as its sender had it.

With NOTIFY_SOCKET set, systemd is told when the command listens and when it ends.

Exit status: 0 after SIGTERM, 130 after SIGINT, 2 wrong usage, a wrong file, or a path that cannot be used.

Examples:
  $ upcall vsock device --guest-cid 4 --socket /tmp/vhost4.socket --uds-path /tmp/vm4.vsock
  $ upcall vsock device --vm guest-cid=3,socket=/tmp/vhost3.socket,uds-path=/tmp/vm3.vsock,groups=a+b \\
      --vm guest-cid=4,socket=/tmp/vhost4.socket,uds-path=/tmp/vm4.vsock,groups=a
  $ upcall --json vsock device --config vms.yaml
  $ upcall vsock device --config vms.yaml --metrics 9100 --pcap vms.pcap
  $ upcall vsock device --guest-cid 5 --socket /tmp/vhost5.socket --uds-path /tmp/vm5.vsock --link /run/hub.socket
  $ upcall vsock device --socket /tmp/vhost.socket --uds-path /tmp/vm.vsock \\
      --from-guest-allow host:1024+host:5000-5010 --from-guest-byte-rate 10M`,
    )
    .action(action(device))
}

async function device(context: Context, options: DeviceOptions): Promise<void> {
  checkGlobals(context)
  if (context.timeoutMs !== undefined)
    throw new UsageError(
      '--timeout',
      'is for commands that do one thing',
      'The deadlines here are --handshake-timeout and --linger.',
    )
  const { config, metrics: address, pcap } = options
  const wanted = await wantedBy(options)
  // Before anything that is to be counted.
  await using metrics = address === undefined ? undefined : await metricsAt(address)
  const journal = new Journal(context.output)
  if (metrics !== undefined) journal.serving(metrics.url)
  await using _capture = pcap === undefined ? undefined : await captureTo(pcap, journal)
  await serveDevices(context, wanted, config === undefined ? undefined : () => wantedIn(config))
}

import { once } from 'node:events'
import { deviceManagerGuest } from '@upcall/device-manager/guest'
import { UpcallServer } from '@upcall/server'
import { argumentsText, resultText } from '@upcall/trace'
import { type HybridProfile, hybridProfiles } from '@upcall/vsock'
import { type Command, Option } from 'commander'
import type { Action, Context } from '../context.js'
import { UsageError } from '../errors.js'
import { EventLog } from '../events.js'
import { NeededOption, parseDuration, parseEndpoint, parseInteger } from '../options.js'
import type { Paint } from '../output.js'
import { openEndpoint } from '../serve/endpoint.js'
import { type GuestOptions, kernels, makeGuest } from '../serve/guest.js'
import { logged, type Served } from '../serve/log.js'
import { ServiceManager } from '../service-manager.js'
import { parseInherited } from '../streams/endpoint.js'
import { logRefusal } from '../streams/listener.js'

interface ServeOptions extends GuestOptions {
  listen: string
  profile?: HybridProfile
}

export function addServeCommand(program: Command, action: Action): void {
  program
    .command('serve')
    .description(
      "serve the guest's end: a simulated guest that behaves as the patched kernels do, or the Linux that runs this command",
    )
    .addOption(
      new NeededOption('--listen <address>', 'where clients connect: hvsock://<path>:<port>, unix:<path> or vsock://any:<port>'),
    )
    .addOption(
      new Option('--profile <vmm>', 'hvsock: read CONNECT and pass EOF on exactly as this VMM does').choices(hybridProfiles),
    )
    .addOption(new Option('--backend <backend>', 'what the guest is').choices(['simulated', 'linux']).default('simulated'))
    .addOption(new Option('--no-roll-back', 'linux: after a failure in a batch of CPUs, keep the CPUs that have changed'))
    .addOption(new Option('--kernel <version>', 'simulated: which kernel it behaves like (default: 6.1)').choices(kernels))
    .addOption(new Option('--cpus <n>', 'simulated: CPUs online at boot (default: 1)').argParser(parseInteger))
    .addOption(
      new Option('--max-cpus <n>', 'simulated: the most CPUs that its kernel can have (default: 256)').argParser(parseInteger),
    )
    .addOption(new Option('--pci <bdf,…>', 'simulated: the PCI functions that answer (default: all)'))
    .addOption(
      new Option(
        '--quirks <list>',
        "simulated: the kernel's quirks, a list of all, none, <quirk> and no-<quirk>, read from left to right (default: all)",
      ),
    )
    .addOption(
      new Option('--boot <duration>', 'simulated: how long it boots; until then it closes each connection').argParser(
        parseDuration,
      ),
    )
    .addHelpText(
      'after',
      `
hvsock://<path>:<port> answers CONNECT <port> on <path>, as a VMM does. Inside a guest, vsock:// is the
guest's own port. Each request is one line on stdout, or one JSON object with --json. SIGINT and SIGTERM end the command and
remove its socket file.

systemd, systemd:<name> and fd:<n> as the address are a Unix or AF_VSOCK socket that systemd or another program
has opened; every connection is the guest's. With NOTIFY_SOCKET set, systemd is told when the command listens
and when it ends.

--backend linux runs inside a guest, as root. CPUs and PCI functions go through sysfs, virtio-mmio windows through
the kernel module upcall_mmio where it is loaded. The kernel needs no patch.

Quirks: tornRequests, staleReplyBytes, stalePciResult, wrongMagicSucceeds, partialCpuAdd, slowAbsentCpu, resetWhileBooting

Examples:
  $ upcall serve --listen hvsock:///tmp/vm.sock:219 --max-cpus 8
  $ upcall serve --listen unix:/tmp/guest.sock --kernel 6.12 --pci 00:05.0,00:06.0 --boot 3s
  $ upcall serve --backend linux --listen vsock://any:219
  $ upcall --arch aarch64 --json serve --listen hvsock:///tmp/vm.sock --quirks none,stalePciResult`,
    )
    .action(action(serve))
}

async function serve(context: Context, options: ServeOptions): Promise<void> {
  const { io, output, arch } = context
  const { signal } = io
  const address = parseInherited(options.listen, '--listen', io.env) ?? parseEndpoint(options.listen, '--listen')
  const isHybrid = !('fd' in address) && address.transport === 'hvsock'
  if (options.profile !== undefined && !isHybrid)
    throw new UsageError('--profile', 'only an hvsock:// address to listen on can use it')
  const guest = makeGuest(arch, options, signal)
  const log = new EventLog(output)
  const service = logged(deviceManagerGuest(guest.backend), {
    arch,
    framed: !guest.backend.quirks?.tornRequests,
    log: (served) => log.event({ event: 'request', ...served }, (paint) => servedText(served, paint)),
  })
  const server = new UpcallServer({ services: [service] })
  server.on('connection', ({ id, remote }) =>
    log.event({ event: 'connect', connection: id, remote }, (paint) => `#${id} connected ${paint('grey', `(${remote})`)}`),
  )
  server.on('disconnect', ({ id }, end) =>
    log.event({ event: 'disconnect', connection: id, reason: end.reason }, () => `#${id} gone: ${end.reason}`),
  )

  const manager = new ServiceManager(io)
  const endpoint = await openEndpoint(
    address,
    (stream, remote) => void server.accept(stream, { remote }),
    (refusal) => logRefusal(log, refusal),
    options.profile,
  )
  let boot: NodeJS.Timeout | undefined
  try {
    if (options.boot !== undefined) {
      boot = setTimeout(() => {
        guest.boot()
        log.event({ event: 'booted' }, () => 'the guest has booted')
      }, options.boot)
    }
    const where = endpoint.address
    const { kernel, cpus, maxCpus } = guest.about
    const size = cpus === undefined ? 'this guest' : `${cpus} of ${maxCpus} CPUs`
    await output.result(
      { event: 'listening', address: where, arch, ...guest.about, booting: boot !== undefined },
      (paint) => `${paint('green', 'listening')} on ${where}: ${arch}, Linux ${kernel}, ${size}${boot ? ', booting' : ''}`,
    )
    await manager.ready(where)
    context.exit.servesUntilTold = true
    if (!signal.aborted) await once(signal, 'abort')
  } finally {
    clearTimeout(boot)
    await manager.stopping()
    await endpoint.close()
    await server.close()
  }
}

function servedText({ connection, operation, malformed, result, durationMs }: Served, paint: Paint): string {
  const asked = malformed ?? `${operation?.op} ${operation ? argumentsText(operation) : ''}`.trim()
  const answered =
    result === undefined ? paint('magenta', 'no reply will come') : paint(result === 0 ? 'green' : 'red', resultText(result))
  return `#${connection} ${asked} → ${answered} ${paint('grey', `(${durationMs} ms)`)}`
}

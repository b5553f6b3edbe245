import { connect, listenHybrid } from '@upcall/vsock'
import { describe, it } from 'vitest'
import { endCases, type PassageKind, runEndCase, type Verdict } from '../../../../tests/support/ends.js'
import { start } from '../../testing/harness.js'

interface Words {
  greeting?: string
  halfClose?: boolean
  /** The words of the command, for a near and a far path. */
  argv(near: string, far: string): string[]
  /** In front of the far peer stands a VMM whose dialer's EOF shuts both ways. */
  vmm?: boolean
}

/** `upcall vsock forward`, and what its log says of the connection. */
function forwarding(name: string, { greeting = '', halfClose = true, vmm = false, argv }: Words): PassageKind {
  return {
    name,
    greeting,
    halfClose,
    holdsEof: vmm,
    async open({ near, far }) {
      const guest = vmm
        ? await listenHybrid({
            path: `${far}.vm`,
            profile: 'firecracker',
            handshakeTimeoutMs: 30_000,
            route: (_port, { signal }) => connect(`unix:${far}`, { signal, retry: { maxDelayMs: 20 } }),
          })
        : undefined
      // Retrying gives up an attempt after 2 s, which on a busy machine would make two connections of one.
      const options = ['--timeout', '30s', '--linger', '10m', ...(greeting === '' ? [] : ['--retry'])]
      const running = start(['--json', 'vsock', 'forward', ...argv(near, far), ...options])
      await running.stdout.has('"listening"')
      const verdict = running.stdout.has('"disconnect"').then(async (): Promise<Verdict> => {
        while (!running.stdout.text.endsWith('\n')) await new Promise(setImmediate)
        const { outcome } = running.stdout.json.at(-1)
        return outcome === 'ok' ? 'ok' : outcome === 'not-sent' ? 'refused' : 'broken'
      })
      return {
        asked: running.stdout.has('"event":"connect"'),
        verdict,
        async close() {
          running.interrupt('SIGTERM')
          await running.status
          await guest?.close()
        },
      }
    },
  }
}

const greeting = 'CONNECT 80\n'
const kinds = [
  forwarding('relay', { argv: (near, far) => [`unix:${near}`, `unix:${far}`] }),
  forwarding('relay as a VMM', { greeting, argv: (near, far) => ['--as-vmm', `hvsock://${near}:80`, `unix:${far}`] }),
  forwarding('relay to a VMM without half-close', {
    halfClose: false,
    vmm: true,
    argv: (near, far) => [`unix:${near}`, `hvsock://${far}.vm:80`],
  }),
]

describe.each(kinds)('$name', (kind) => {
  it.concurrent.each(endCases(kind))('$name', { timeout: 90_000 }, (row) => runEndCase(kind, row))
})

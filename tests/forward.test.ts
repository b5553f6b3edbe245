// The library's forwarder in the middle of two peers: how a stream ends, over each pair of transports and as each VMM.
import {
  connect,
  type EndpointInit,
  type ForwardEnd,
  type Forwarder,
  type ForwardOptions,
  formatEndpoint,
  forward,
  type HybridProfile,
  hybridProfiles,
  listenHybrid,
} from '@upcall/vsock'
import { describe, it } from 'vitest'
import { endCases, type PassageKind, runEndCase, type Verdict } from './support/ends.js'

interface Hop {
  readonly from: EndpointInit
  readonly to: EndpointInit | ((last: Forwarder) => EndpointInit)
  readonly options?: ForwardOptions
}

interface Chain extends Pick<PassageKind, 'halfClose'> {
  /** As a VMM: the near peer says CONNECT. */
  readonly greets?: boolean
  /** The last forwarder leads to this VMM. */
  readonly vmm?: HybridProfile
  /** From the far end to the near one, for a far and a near path. */
  hops(near: string, far: string): readonly Hop[]
}

const verdicts: Readonly<Record<ForwardEnd['outcome'], Verdict>> = { ok: 'ok', 'not-sent': 'refused', indeterminate: 'broken' }

/** One or more forwarders in a row. The worst of what they tell of the connection is the verdict. */
function chain(name: string, { halfClose, greets = false, vmm, hops }: Chain): PassageKind {
  const holdsEof = vmm !== undefined && vmm !== 'cloud-hypervisor'
  return {
    name,
    greeting: greets ? 'CONNECT 80\n' : '',
    halfClose,
    holdsEof,
    async open({ near, far }) {
      const guest = vmm
        ? await listenHybrid({
            path: `${far}.vm`,
            profile: vmm,
            handshakeTimeoutMs: 30_000,
            route: (_port, { signal }) => connect(`unix:${far}`, { signal, retry: { maxDelayMs: 20 } }),
          })
        : undefined
      const forwarders: Forwarder[] = []
      const ends: Promise<ForwardEnd>[] = []
      let onAsked = () => {}
      const asked = new Promise<void>((resolve) => {
        onAsked = resolve
      })
      for (const { from, to, options } of hops(near, far)) {
        const last = forwarders.at(-1)
        const forwarder = await forward(from, typeof to === 'function' && last ? to(last) : (to as EndpointInit), {
          timeoutMs: 30_000,
          lingerMs: 600_000,
          // An attempt is given up after 2 s, which on a busy machine would make two connections of one.
          retry: greets && { attemptTimeoutMs: 30_000, maxDelayMs: 20 },
          ...options,
        })
        forwarder.once('connection', onAsked)
        ends.push(new Promise((resolve) => forwarder.once('closed', (_connection, end) => resolve(end))))
        forwarders.push(forwarder)
      }
      return {
        asked,
        verdict: Promise.all(ends).then((all) => {
          const outcomes = all.map(({ outcome }) => verdicts[outcome])
          return outcomes.find((verdict) => verdict === 'broken') ?? outcomes.find((verdict) => verdict === 'refused') ?? 'ok'
        }),
        async close() {
          for (const forwarder of forwarders.reverse()) await forwarder.close()
          await guest?.close()
        },
      }
    },
  }
}

const tcp = (last: Forwarder) => formatEndpoint(last.address)

const kinds = [
  chain('unix to unix', { halfClose: true, hops: (near, far) => [{ from: `unix:${near}`, to: `unix:${far}` }] }),
  chain('unix to tcp to unix', {
    halfClose: true,
    hops: (near, far) => [
      { from: 'tcp:any', to: `unix:${far}` },
      { from: `unix:${near}`, to: tcp },
    ],
  }),
  chain('as a VMM to unix', {
    greets: true,
    halfClose: true,
    hops: (near, far) => [{ from: `hvsock://${near}:80`, to: `unix:${far}`, options: { asVmm: true } }],
  }),
  chain('as a VMM to tcp to unix', {
    greets: true,
    halfClose: true,
    hops: (near, far) => [
      { from: 'tcp:any', to: `unix:${far}` },
      { from: `hvsock://${near}:80`, to: tcp, options: { asVmm: true } },
    ],
  }),
  ...hybridProfiles.map((profile) =>
    chain(`as ${profile} to unix`, {
      greets: true,
      halfClose: profile === 'cloud-hypervisor',
      hops: (near, far) => [{ from: `hvsock://${near}:80`, to: `unix:${far}`, options: { asVmm: true, profile } }],
    }),
  ),
  ...hybridProfiles.map((profile) => {
    const halfClose = profile === 'cloud-hypervisor'
    return chain(`unix to ${profile}`, {
      halfClose,
      vmm: profile,
      hops: (near, far) => [{ from: `unix:${near}`, to: `hvsock://${far}.vm:80`, options: halfClose ? { halfClose } : {} }],
    })
  }),
]

describe.each(kinds)('$name', (kind) => {
  it.concurrent.each(endCases(kind))('$name', { timeout: 90_000 }, (row) => runEndCase(kind, row))
})

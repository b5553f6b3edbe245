import { connect, type HybridServer, type ListenHybridOptions, listenHybrid, type VsockSocket } from '@upcall/vsock'
import type { Passage, Verdict } from './ends.js'

/** What a passage tells of its connection: that the near peer has asked for the far one, and what became of it. */
export function told() {
  let onAsked = () => {}
  const asked = new Promise<void>((resolve) => {
    onAsked = resolve
  })
  let judge: (verdict: Verdict) => void = () => {}
  const verdict = new Promise<Verdict>((resolve) => {
    judge = resolve
  })
  return { asked, onAsked: () => onAsked(), verdict, judge: (verdict: Verdict) => judge(verdict) }
}

/** A hybrid server on `path`, whose guest is the far peer: all that joins the two is the library's. */
export async function hybridPassage(
  path: string,
  far: string,
  options: Partial<ListenHybridOptions>,
): Promise<Passage & { readonly server: HybridServer }> {
  let guest: VsockSocket | undefined
  const { asked, onAsked, verdict, judge } = told()
  const server = await listenHybrid({
    path,
    handshakeTimeoutMs: 30_000,
    ...options,
    async route(_port, { signal }) {
      onAsked()
      guest = await connect(`unix:${far}`, { signal, retry: { maxDelayMs: 20 } })
      guest.once('close', () => judge(guest?.errored ? 'broken' : 'ok'))
      return guest
    },
  })
  server.on('refused', () => judge('refused'))
  const breakFar = () => void guest?.destroy(new Error('the device broke'))
  return { server, asked, verdict, breakFar, close: () => server.close() }
}

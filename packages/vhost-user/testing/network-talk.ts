import type { FakeNetwork } from './fake-network.js'
import type { GuestKernel } from './guest-kernel.js'
import type { KernelSocket, SocketKind, SocketOptions } from './kernel-socket.js'
import { type Plan, Program } from './talk.js'

export interface TalkOptions {
  readonly port?: number
  readonly kind?: SocketKind
  readonly options?: SocketOptions & { port?: number }
  readonly serverOptions?: SocketOptions
  readonly callerPlan: Plan
  readonly serverPlan: Plan
}

interface Guest {
  readonly cid: number
  readonly kernel: GuestKernel
}

/** A connection of two programs in two guests, from the REQUEST on. */
export class Talk {
  readonly caller: Program
  server: Program | undefined

  constructor(from: Guest, to: Guest, talk: TalkOptions) {
    const { port = 5000, kind = 'stream', options, serverOptions, callerPlan, serverPlan } = talk
    const accept = (socket: KernelSocket) => {
      // An attacker may have connected to the port, too.
      if (socket.peer.cid === from.cid) this.server = new Program(socket, serverPlan, callerPlan)
    }
    to.kernel.listen(port, kind, accept, serverOptions)
    this.caller = new Program(from.kernel.connect({ cid: to.cid, port }, kind, options), callerPlan, serverPlan)
  }

  step(): boolean {
    const moved = this.caller.step()
    return (this.server?.step() ?? false) || moved
  }

  get done(): boolean {
    const { caller, server } = this
    return (caller.done || caller.socket.error !== undefined) && server !== undefined && server.done
  }

  /** Checks what each side has got by the way both have ended. */
  check(): void {
    const { caller } = this
    const server = this.server!
    for (const [from, to] of [
      [caller, server],
      [server, caller],
    ] as const) {
      if (from.plan.ending === 'abort' || to.plan.ending !== 'shutdown') continue
      if (from.written !== to.received) throw new Error(`${to.received} bytes have come of ${from.written}`)
      // A program that closes at once may refuse the other's bytes. A program that reads to the end takes them all.
      if (from.plan.ending !== 'shutdown') continue
      if (!to.complete || to.socket.end !== 'shutdown')
        throw new Error(`${to.received} bytes have come, and then ${to.socket.end}`)
    }
  }
}

/** Lets the talks run to their ends, after which nothing may be left of them. */
export function runTalks(network: FakeNetwork, talks: readonly Talk[], toTheEnd = true): void {
  network.run(() => talks.every((talk) => talk.done), talks)
  for (const talk of talks) talk.check()
  if (toTheEnd) network.end()
}

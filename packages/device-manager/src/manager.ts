import { type ClientOptions, type StateName, UpcallClient, type WaitOptions } from '@upcall/client'
import { checkObject } from '@upcall/foundation/check'
import type { Arch, CpuRequest, Reply, Request } from '@upcall/wire'
import { type Bdf, parseBdf } from './bdf.js'
import { orderCpus, type Present } from './cpu-order.js'
import { GuestError } from './guest-error.js'
import { deviceManagerProtocol, type ReplyTimeouts } from './protocol.js'
import { CpuResizer, type ResizeOptions, type ResizeResult } from './resize.js'

/** What a {@link DeviceManager} is made with: the guest's architecture, and what `UpcallClient` takes. */
export interface DeviceManagerOptions<A extends Arch> extends Omit<ClientOptions<Request<A>, Reply>, 'service'> {
  /** The guest's architecture. The wire does not tell. */
  arch: A
  /** How long replies may take. Default: 30 s for CPU requests, 10 s for others. */
  replyTimeouts?: ReplyTimeouts | undefined
}

/** vCPUs by APIC id on x86_64; on aarch64 only a count, and the guest takes the lowest or highest. */
export type Cpus<A extends Arch> = A extends 'x86_64'
  ? { apicIds: readonly number[]; apicVersion?: number | undefined }
  : { count: number }

export interface CpuOptions<A extends Arch> extends WaitOptions {
  /** The vCPUs that are present now, the boot CPU included: with it, ids that would harm the guest are refused before anything is sent. */
  present?: (A extends 'x86_64' ? readonly number[] : number) | undefined
}

/** A virtio-mmio window: `base` and `size` in bytes, `irq` as the guest's architecture counts (see `MmioRequest`). */
export interface MmioWindow {
  base: bigint
  size: bigint
  irq: number
}

/**
 * The VMM's side of the device manager. Each operation resolves when the guest said yes (result 0) and rejects otherwise: with
 * {@link GuestError} when the guest refused, `UpcallError` when it cannot be known or was never sent, `WireError` when the arguments
 * are wrong and nothing was sent.
 */
export class DeviceManager<A extends Arch> implements AsyncDisposable {
  /** The session underneath, for its events and for requests whose failed replies are wanted as replies. */
  readonly client: UpcallClient<Request<A>, Reply>
  readonly arch: A
  readonly #remote: string
  readonly #resizer: CpuResizer<A>

  /** @throws TypeError or RangeError that names the option that is wrong. */
  constructor(options: DeviceManagerOptions<A>) {
    checkObject('options', options)
    const { arch, replyTimeouts, ...client } = options
    this.arch = arch
    this.#remote = options.remote ?? 'guest'
    this.client = new UpcallClient({ ...client, service: deviceManagerProtocol({ arch, replyTimeouts }) })
    this.#resizer = new CpuResizer(arch, this.#remote, options.clock, (request, wait) =>
      this.request(request as Request<A>, wait),
    )
  }

  get state(): StateName {
    return this.client.state
  }

  /** See `UpcallClient.ready`. */
  ready(options?: WaitOptions): Promise<void> {
    return this.client.ready(options)
  }

  /** See `UpcallClient.close`. */
  close(): Promise<void> {
    return this.client.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Brings vCPUs online that the VMM has started. Ids go out ascending. */
  addCpus(cpus: Cpus<A>, options?: CpuOptions<A>): Promise<Reply> {
    return this.request({ ...cpus, type: 'ADD_CPU' } as Request<A>, options)
  }

  /** Takes vCPUs offline; stop them after the yes. Ids go out descending; CPU 0 is refused. Remove from the top: a hole harms 5.10 and 6.1 guests. */
  removeCpus(cpus: Cpus<A>, options?: CpuOptions<A>): Promise<Reply> {
    return this.request({ ...cpus, type: 'DEL_CPU' } as Request<A>, options)
  }

  /** Registers a virtio-mmio window. Success means that the platform device exists, not that a driver bound to it. */
  addMmio(window: MmioWindow, options?: WaitOptions): Promise<Reply> {
    return this.request({ ...window, type: 'ADD_MMIO' }, options)
  }

  /** Takes a window away, named exactly as it was added. Tear the device down after the yes. */
  removeMmio(window: MmioWindow, options?: WaitOptions): Promise<Reply> {
    return this.request({ ...window, type: 'DEL_MMIO' }, options)
  }

  /** Has the guest look at a PCI function that the VMM has plugged in. `'00:05.0'` or `{ bus, devfn }`. */
  addPci(place: string | Bdf, options?: WaitOptions): Promise<Reply> {
    return this.#pci('ADD_PCI', place, options)
  }

  /** Has the guest let go of a PCI function; unplug it after the yes. */
  removePci(place: string | Bdf, options?: WaitOptions): Promise<Reply> {
    return this.#pci('DEL_PCI', place, options)
  }

  /**
   * Brings the number of vCPUs to `target`: grows by the lowest free ids (`start` before ADD_CPU), shrinks by the highest (`stop` after
   * DEL_CPU's yes).
   *
   * @throws {@link ResizeError}: what happened, and what is present or unknown now. A concurrent call: code `BUSY`, `not-sent`.
   */
  resizeCpus(target: number, options: ResizeOptions<A>): Promise<ResizeResult<A>> {
    return this.#resizer.resize(target, options)
  }

  /** Sends any request under the same rules, as parsed from an operation; RAW goes out as it is. Rejects when the guest refuses. */
  async request(request: Request<A>, options?: CpuOptions<A>): Promise<Reply> {
    const checked = Object.freeze(
      isCpuRequest(request) ? orderCpus(request, options?.present as Present | undefined) : { ...request },
    ) as Request<A>
    const reply = await this.client.request(checked, options)
    if (reply.result !== 0) throw new GuestError(checked, reply, this.#remote)
    return reply
  }

  async #pci(type: 'ADD_PCI' | 'DEL_PCI', place: string | Bdf, options: WaitOptions | undefined): Promise<Reply> {
    return this.request({ ...(typeof place === 'string' ? parseBdf(place) : place), type }, options)
  }
}

function isCpuRequest(request: Request): request is CpuRequest {
  return request?.type === 'ADD_CPU' || request?.type === 'DEL_CPU'
}

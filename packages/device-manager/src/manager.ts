import { type ClientOptions, type StateName, UpcallClient, type WaitOptions } from '@upcall/client'
import { checkObject } from '@upcall/foundation/check'
import type { Arch, CpuRequest, Reply, Request } from '@upcall/wire'
import { type Bdf, parseBdf } from './bdf.js'
import { orderCpus, type Present } from './cpu-order.js'
import { GuestError } from './guest-error.js'
import { deviceManagerProtocol, type ReplyTimeouts } from './protocol.js'
import { CpuResizer, type ResizeOptions } from './resize.js'
import type { ResizeResult } from './resize-error.js'

/** Options of a {@link DeviceManager}: the guest's architecture, and the options of `UpcallClient`. */
export interface DeviceManagerOptions<A extends Arch> extends Omit<ClientOptions<Request<A>, Reply>, 'service'> {
  /** The guest's architecture. The protocol does not tell it. */
  arch: A
  /** How long replies may take. Default: 30 s for CPU requests, 10 s for others. */
  replyTimeouts?: ReplyTimeouts | undefined
}

/** vCPUs by APIC id on x86_64. On aarch64 a count: the guest takes the lowest or the highest ones. */
export type Cpus<A extends Arch> = A extends 'x86_64'
  ? { apicIds: readonly number[]; apicVersion?: number | undefined }
  : { count: number }

export interface CpuOptions<A extends Arch> extends WaitOptions {
  /** The vCPUs that are present now, including the boot CPU. Ids that would harm such a guest are refused before they are sent. */
  present?: (A extends 'x86_64' ? readonly number[] : number) | undefined
}

/** A virtio-mmio window: `base` and `size` in bytes, `irq` in the numbering of the guest's architecture (see `MmioRequest`). */
export interface MmioWindow {
  base: bigint
  size: bigint
  irq: number
}

/**
 * The VMM's side of the device manager. Each operation resolves when the guest has done it (result 0). Otherwise it rejects: with
 * {@link GuestError} if the guest refused; with `UpcallError` if the outcome is not known, or if nothing was sent; with `WireError` if the
 * arguments are wrong, and nothing was sent.
 */
export class DeviceManager<A extends Arch> implements AsyncDisposable {
  /** The session, for its events, and for requests whose failed replies are wanted as replies. */
  readonly client: UpcallClient<Request<A>, Reply>
  readonly arch: A
  readonly #remote: string
  readonly #resizer: CpuResizer<A>

  /** @throws TypeError or RangeError that names the wrong option. */
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

  /**
   * Takes vCPUs offline. Stop them when this has resolved. Ids go out descending; CPU 0 is refused. Remove from the top: a hole in the ids
   * harms 5.10 and 6.1 guests.
   */
  removeCpus(cpus: Cpus<A>, options?: CpuOptions<A>): Promise<Reply> {
    return this.request({ ...cpus, type: 'DEL_CPU' } as Request<A>, options)
  }

  /** Registers a virtio-mmio window. Success means that the platform device exists, not that a driver is bound to it. */
  addMmio(window: MmioWindow, options?: WaitOptions): Promise<Reply> {
    return this.request({ ...window, type: 'ADD_MMIO' }, options)
  }

  /** Removes a window, which is named exactly as it was added. Tear the device down when this has resolved. */
  removeMmio(window: MmioWindow, options?: WaitOptions): Promise<Reply> {
    return this.request({ ...window, type: 'DEL_MMIO' }, options)
  }

  /** Makes the guest scan for a PCI function that the VMM has plugged in. `'00:05.0'` or `{ bus, devfn }`. */
  addPci(place: string | Bdf, options?: WaitOptions): Promise<Reply> {
    return this.#pci('ADD_PCI', place, options)
  }

  /** Makes the guest remove a PCI function. Unplug it when this has resolved. */
  removePci(place: string | Bdf, options?: WaitOptions): Promise<Reply> {
    return this.#pci('DEL_PCI', place, options)
  }

  /**
   * Brings the number of vCPUs to `target`: grows by the lowest free ids (`start`, then ADD_CPU), shrinks by the highest (DEL_CPU, then
   * `stop`).
   *
   * @throws {@link ResizeError}: what ended it, and which vCPUs are present or unknown now. UpcallError `BUSY` if another resize is under way.
   */
  resizeCpus(target: number, options: ResizeOptions<A>): Promise<ResizeResult<A>> {
    return this.#resizer.resize(target, options)
  }

  /** Sends any request under the same rules; RAW goes out as it is. Rejects when the guest refuses. */
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

import type { MmioRequest } from '@upcall/wire'
import { NO_COMMAND } from '../errno.js'
import { type Files, NO_FILE } from './files.js'

/** Of the kernel module in kernel/upcall-mmio. The module has the rules, and its errnos are the results. */
const PARAMETERS = '/sys/module/upcall_mmio/parameters'

/** virtio-mmio windows, through the kernel module. It may be loaded or unloaded at any time. Without it the command does not exist. */
export class LinuxMmio {
  readonly #files: Files

  constructor(files: Files) {
    this.#files = files
  }

  add(window: MmioRequest): Promise<number> {
    return this.#write('add', window)
  }

  remove(window: MmioRequest): Promise<number> {
    return this.#write('remove', window)
  }

  async #write(parameter: 'add' | 'remove', { base, size, irq }: MmioRequest): Promise<number> {
    const window = `0x${size.toString(16)}@0x${base.toString(16)}:${irq}`
    const result = await this.#files.write(`${PARAMETERS}/${parameter}`, window)
    return result === NO_FILE ? NO_COMMAND : result
  }
}

import type { Descriptor, FrontEndBinding, Mapped } from '../native/binding.js'

/** Memory that a back end can map: a memfd, and this process's own view of it. */
export class SharedMemory {
  /** Goes to the back end with SET_MEM_TABLE. */
  readonly descriptor: Descriptor
  /** The memory itself. After `close` it is empty. */
  readonly bytes: Uint8Array
  readonly #binding: FrontEndBinding
  readonly #mapped: Mapped

  /** @param size in bytes, at most 4 GiB: a view in Node 20 cannot be longer. */
  constructor(binding: FrontEndBinding, size: number) {
    this.#binding = binding
    this.descriptor = binding.memfd(size)
    this.#mapped = binding.map(this.descriptor, 0, size, size, size)
    this.bytes = new Uint8Array(this.#mapped.windows[0]!)
  }

  /** A back end that has mapped the memory keeps it. Idempotent. */
  close(): void {
    this.#binding.close(this.descriptor)
    this.#binding.unmap(this.#mapped.mapping)
  }
}

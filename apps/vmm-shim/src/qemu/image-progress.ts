import type { Clock } from '@upcall/client'
import type { DownloadAmount } from '@upcall/qemu'

const MIB = 2 ** 20

/** What becomes of a guest image, in words for people, as often as they want to read of it. */
export class ImageProgress {
  readonly #everyMs: number
  readonly #clock: Pick<Clock, 'now'>
  readonly #tell: (text: string) => void
  #download = ''
  #told = 0
  #began = 0

  /** @param everyMs - How often a download that goes on is told of. */
  constructor(everyMs: number, tell: (text: string) => void, clock: Pick<Clock, 'now'> = performance) {
    this.#everyMs = everyMs
    this.#tell = tell
    this.#clock = clock
  }

  /** For `onProgress` of `@upcall/qemu`. */
  readonly on = (step: string, amount?: DownloadAmount): void => {
    const now = this.#clock.now()
    if (amount === undefined) return void this.#tell(step)
    const download = `${step} ${amount.total}`
    if (download !== this.#download) {
      this.#download = download
      this.#began = now
      this.#told = now
      return void this.#tell(`${step}, ${mebibytes(amount.total)} MiB`)
    }
    if (now - this.#told < this.#everyMs) return
    this.#told = now
    const rate = mebibytes((amount.done / (now - this.#began)) * 1000)
    this.#tell(`${step}: ${mebibytes(amount.done)} of ${mebibytes(amount.total)} MiB, ${rate} MiB/s`)
  }
}

const mebibytes = (bytes: number): string => (bytes / MIB).toFixed(1)

import { EINVAL } from '../errno.js'
import { cpuList, type Files, NO_FILE } from './files.js'

const CPUS = '/sys/devices/system/cpu'

/** The guest's CPUs by their numbers, through sysfs. */
export class LinuxCpus {
  readonly #files: Files

  constructor(files: Files) {
    this.#files = files
  }

  /** CPU numbers, ascending. */
  async online(): Promise<number[]> {
    return cpuList(await this.#files.read(`${CPUS}/online`))
  }

  async present(): Promise<number[]> {
    return cpuList(await this.#files.read(`${CPUS}/present`))
  }

  async possible(): Promise<number[]> {
    return cpuList(await this.#files.read(`${CPUS}/possible`))
  }

  /** Whether it can be switched: its device is there, and it is not the boot CPU of x86_64, which has no such file on a stock kernel. */
  switchable(number: number): Promise<boolean> {
    return this.#files.exists(`${CPUS}/cpu${number}/online`)
  }

  /** Takes as long as the kernel takes. Resolves with 0 or the negative errno; a CPU that was unplugged meanwhile is none. */
  async switch(number: number, online: boolean): Promise<number> {
    const result = await this.#files.write(`${CPUS}/cpu${number}/online`, online ? '1' : '0')
    return result === NO_FILE ? EINVAL : result
  }

  /**
   * Switches CPUs one after the other and stops at the first that fails. With `rollBack` those before it are switched back; one that
   * does not go back stays where it is, and the next request finds it there.
   */
  async switchAll(numbers: readonly number[], online: boolean, rollBack: boolean): Promise<number> {
    for (const [i, number] of numbers.entries()) {
      const result = await this.switch(number, online)
      if (result === 0) continue
      if (rollBack) for (const done of numbers.slice(0, i).reverse()) await this.switch(done, !online)
      return result
    }
    return 0
  }
}

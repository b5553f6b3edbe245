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

  /** Whether the CPU can be switched: it has a device, and it is not the boot CPU of x86_64, which has no such file on a stock kernel. */
  switchable(number: number): Promise<boolean> {
    return this.#files.exists(`${CPUS}/cpu${number}/online`)
  }

  /**
   * Resolves with 0 or the negative errno when the kernel is done. The state counts: it is a success if another program was faster, or if
   * a CPU was unplugged that had to go offline. A CPU that is unplugged instead of coming online does not exist.
   */
  async switch(number: number, online: boolean): Promise<number> {
    const result = await this.#files.write(`${CPUS}/cpu${number}/online`, online ? '1' : '0')
    if (result === NO_FILE) return online ? EINVAL : 0
    return result !== 0 && (await this.#isOnline(number)) === online ? 0 : result
  }

  /**
   * Switches CPUs one after the other and stops at the first that fails. With `rollBack` the earlier ones are switched back, except those
   * that another program had switched. A CPU that does not switch back stays as it is, and the next request finds it so.
   */
  async switchAll(numbers: readonly number[], online: boolean, rollBack: boolean): Promise<number> {
    const done: number[] = []
    for (const number of numbers) {
      if ((await this.#isOnline(number)) === online) continue
      const result = await this.switch(number, online)
      if (result === 0) {
        done.push(number)
        continue
      }
      if (rollBack) for (const each of done.reverse()) await this.switch(each, !online)
      return result
    }
    return 0
  }

  /** Undefined for a CPU that cannot be switched. */
  async #isOnline(number: number): Promise<boolean | undefined> {
    const state = await this.#files.read(`${CPUS}/cpu${number}/online`)
    return state === undefined ? undefined : state === '1'
  }
}

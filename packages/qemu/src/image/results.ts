/** Lines from the results port → the command's own lines, and then its exit status. Pure. */
export class ResultReader {
  readonly #prefix: string
  readonly #onLine: (line: string) => void
  #blank = false

  constructor(token: string, onLine: (line: string) => void) {
    this.#prefix = `${token} exit `
    this.#onLine = onLine
  }

  /** Takes one line; returns the exit status with the line that tells it. */
  push(line: string): number | undefined {
    if (line.startsWith(this.#prefix)) return Number(line.slice(this.#prefix.length))
    // The guest ends the command's last line before it tells the status: a blank line right before that is not the command's.
    if (this.#blank) this.#onLine('')
    this.#blank = line === ''
    if (!this.#blank) this.#onLine(line)
    return undefined
  }
}

import { writeFileSync } from 'node:fs'

/** Named checks, one after the other, each with its result and time; the sum at the end. */
export class Checks {
  #suite = ''
  #passed = 0
  #failed = []

  /** What is counted from here on belongs to this suite. */
  begin(suite) {
    this.#suite = suite
    console.log(`\n# ${suite}`)
  }

  /** Runs one check; a failure is printed and counted, and the next one runs. Resolves with what the check returned. */
  async check(name, run) {
    const started = performance.now()
    try {
      const value = await run()
      this.passed(name, performance.now() - started)
      return value
    } catch (error) {
      this.failed(name, performance.now() - started, error?.stack ?? String(error))
      return undefined
    }
  }

  /** Counts a check that was made elsewhere, in a guest. */
  passed(name, ms) {
    this.#passed += 1
    console.log(`ok ${this.#count} - ${name} (${Math.round(ms)} ms)`)
  }

  failed(name, ms, why) {
    this.#failed.push(`${this.#suite}: ${name}`)
    console.log(`not ok ${this.#count} - ${name} (${Math.round(ms)} ms)\n${why.replace(/^/gm, '    ')}`)
  }

  get #count() {
    return this.#passed + this.#failed.length
  }

  /** Prints the sum, writes it to `json` in the shape of vitest's reporter, and sets the exit status. */
  finish(json) {
    console.log(`1..${this.#count}\n\ne2e: ${this.#passed} passed, ${this.#failed.length} failed`)
    for (const name of this.#failed) console.log(`  failed: ${name}`)
    if (json) writeFileSync(json, JSON.stringify({ numPassedTests: this.#passed, numFailedTests: this.#failed.length }))
    if (this.#failed.length > 0 || this.#passed === 0) process.exitCode = 1
  }
}

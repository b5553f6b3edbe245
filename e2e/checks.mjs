// Named checks, one after the other, each with its result and time; the sum at the end.
export class Checks {
  #title
  #passed = 0
  #failed = []

  constructor(title) {
    this.#title = title
  }

  /** Runs one check; a failure is printed and counted, and the next one runs. Resolves with what the check returned. */
  async check(name, run) {
    const started = performance.now()
    try {
      const value = await run()
      this.#passed += 1
      console.log(`ok   ${name} (${Math.round(performance.now() - started)} ms)`)
      return value
    } catch (error) {
      this.#failed.push(name)
      console.log(`FAIL ${name} (${Math.round(performance.now() - started)} ms)\n${indented(error)}`)
      return undefined
    }
  }

  /** Prints the sum and sets the exit status. */
  finish() {
    console.log(`\n${this.#title}: ${this.#passed} passed, ${this.#failed.length} failed`)
    for (const name of this.#failed) console.log(`  failed: ${name}`)
    if (this.#failed.length > 0 || this.#passed === 0) process.exitCode = 1
  }
}

function indented(error) {
  return (error?.stack ?? String(error)).replace(/^/gm, '     ')
}

import type { Output, Paint } from './output.js'

/** What happens while a command serves, one line each with its time, in order. A reader that is slow does not slow whom it serves. */
export class EventLog {
  readonly #output: Output

  constructor(output: Output) {
    this.#output = output
  }

  event(value: object, text: (paint: Paint) => string): void {
    const time = new Date().toISOString()
    void this.#output.result({ time, ...value }, (paint) => `${paint('grey', time.slice(11, 23))} ${text(paint)}`)
  }
}

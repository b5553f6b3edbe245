import type { Output, Paint } from './output.js'

/** What happens while a command serves: one line each, with its time, in order. A slow reader of the log does not slow the service. */
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

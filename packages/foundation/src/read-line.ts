import type { Duplex } from 'node:stream'
import { systemClock } from './clock.js'
import { LineTooLongError, TextLines } from './lines.js'
import { bounded } from './wait.js'

export interface LineLimits {
  /** In characters, without the line end. */
  readonly longest: number
  /** For the whole line, in milliseconds. */
  readonly timeoutMs: number
}

/** The first line that comes, without its end. What follows it, or an error, is read and thrown away. */
export function readLine(stream: Duplex, { longest, timeoutMs }: LineLimits): Promise<string> {
  const late = () => new Error(`no line within ${timeoutMs} ms`)
  const aborted = (cause: unknown) => new Error('aborted', { cause })
  return bounded<string>({ timeoutMs, clock: systemClock, late, aborted }, (resolve, reject) => {
    const lines = new TextLines({ max: longest })
    const onEnd = () => reject(new Error('no line came'))
    const onData = (chunk: string) => {
      try {
        const [line] = lines.push(chunk)
        if (line !== undefined) resolve(line)
      } catch (error) {
        if (!(error instanceof LineTooLongError)) throw error
        reject(new Error(`more than ${longest} characters without a line end`))
      }
    }
    stream.setEncoding('utf8').on('data', onData).once('end', onEnd).once('close', onEnd)
    return () => stream.off('data', onData).off('end', onEnd).off('close', onEnd).resume()
  })
}

import type { Duplex } from 'node:stream'
import { LineTooLongError, TextLines } from './lines.js'

export interface LineLimits {
  /** In characters, without the line end. */
  readonly longest: number
  /** For the whole line, in milliseconds. */
  readonly timeoutMs: number
}

/** The first line that comes, without its end. What follows it, or an error, is read and thrown away. */
export function readLine(stream: Duplex, { longest, timeoutMs }: LineLimits): Promise<string> {
  return new Promise((resolve, reject) => {
    const lines = new TextLines({ max: longest })
    const timer = setTimeout(() => fail(`no line within ${timeoutMs} ms`), timeoutMs)
    const settle = () => {
      clearTimeout(timer)
      stream.off('data', onData).off('end', onEnd).off('close', onEnd).resume()
    }
    const fail = (message: string) => {
      settle()
      reject(new Error(message))
    }
    const onEnd = () => fail('no line came')
    const onData = (chunk: string) => {
      try {
        const [line] = lines.push(chunk)
        if (line === undefined) return
        settle()
        resolve(line)
      } catch (error) {
        if (!(error instanceof LineTooLongError)) throw error
        fail(`more than ${longest} characters without a line end`)
      }
    }
    stream.setEncoding('utf8').on('data', onData).once('end', onEnd).once('close', onEnd)
  })
}

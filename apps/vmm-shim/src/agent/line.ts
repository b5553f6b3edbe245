import type { Duplex } from 'node:stream'

export interface LineLimits {
  /** In characters, without the line end. */
  readonly longest: number
  /** For the whole line, in milliseconds. */
  readonly timeoutMs: number
}

/** The first line that comes, without its end. What follows it, or an error, is read and thrown away. */
export function readLine(stream: Duplex, { longest, timeoutMs }: LineLimits): Promise<string> {
  return new Promise((resolve, reject) => {
    const pieces: string[] = []
    let length = 0
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
      const end = chunk.indexOf('\n')
      const piece = end < 0 ? chunk : chunk.slice(0, end)
      pieces.push(piece)
      length += piece.length
      if (length > longest) fail(`more than ${longest} characters without a line end`)
      else if (end >= 0) {
        settle()
        resolve(pieces.join(''))
      }
    }
    stream.setEncoding('utf8').on('data', onData).once('end', onEnd).once('close', onEnd)
  })
}

import { createReadStream, fstatSync, open } from 'node:fs'
import { Socket } from 'node:net'
import { addAbortSignal, type Readable } from 'node:stream'
import { getSystemErrorMap, promisify } from 'node:util'
import { ByteLines } from '@upcall/foundation/lines'
import { UsageError } from './errors.js'
import type { Io } from './output.js'

const openFd = promisify(open)
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })

/** The bytes of a file, or of stdin for none or `-`. Nothing stays open if the reader stops early, or is interrupted. */
export async function* readInput(file: string | undefined, { stdin, signal }: Io): AsyncGenerator<Buffer> {
  if (signal.aborted) return
  let stream: Readable | undefined
  try {
    stream = file === undefined || file === '-' ? stdin : await openFile(file)
    addAbortSignal(signal, stream)
    for await (const chunk of stream) yield typeof chunk === 'string' ? Buffer.from(chunk) : chunk
  } catch (error) {
    if (signal.aborted) return
    if (isErrno(error)) throw new UsageError(file ?? 'stdin', `cannot be read: ${reasonOf(error)}`, 'Check the path.')
    throw error
  } finally {
    stream?.destroy()
  }
}

/** A pipe with a name is read as one without is: a read of it as a file could not be ended before its writer says something. */
async function openFile(file: string): Promise<Readable> {
  const fd = await openFd(file, 'r')
  return fstatSync(fd).isFIFO() ? new Socket({ fd, readable: true, writable: false }) : createReadStream(file, { fd })
}

/** One line of a text, its number counted from 1. `text` is undefined if the line is longer than allowed. */
export interface Line {
  number: number
  text: string | undefined
}

/** Cuts bytes into lines without ever holding more than a line, or more than about `longest` bytes of it. */
export async function* linesOf(chunks: AsyncIterable<Buffer>, longest: number): AsyncGenerator<Line> {
  const lines = new ByteLines({ max: longest + 1, longer: 'clip' })
  let number = 1
  const lineOf = (bytes: Uint8Array): Line => {
    const text = bytes.length > longest ? undefined : decoder.decode(bytes).replace(/\r$/, '')
    return { number: number++, text }
  }
  for await (const chunk of chunks) for (const bytes of lines.push(chunk)) yield lineOf(bytes)
  if (lines.pending > 0) yield lineOf(lines.take())
}

/** What the errno means, and its name. */
function reasonOf({ code, errno }: NodeJS.ErrnoException): string {
  const [, text] = getSystemErrorMap().get(errno ?? 0) ?? []
  return text === undefined ? `${code}` : `${text} (${code})`
}

function isErrno(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string'
}

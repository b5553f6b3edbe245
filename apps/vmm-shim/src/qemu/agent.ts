import type { Duplex } from 'node:stream'
import type { LinuxReport } from '@upcall/device-manager/guest'
import { type GuestReport, parseAddress } from '@upcall/vmm'
import * as v from 'valibot'
import { AGENT_PORT, type Answer, type Ask, type Executed, MAX_OUTPUT } from '../agent/messages.js'

const REPORT_MS = 5_000
/** Two outputs, of which JSON may write each byte as six characters, and some room for the rest. */
const MAX_ANSWER = 2 * 6 * MAX_OUTPUT + 64 * 1024

export type Connect = (port: number, options: { signal: AbortSignal }) => Promise<Duplex>

/** The VMM's end of the program in the default image. Each question has a connection of its own. */
export class Agent {
  readonly #connect: Connect

  constructor(connect: Connect) {
    this.#connect = connect
  }

  /** What the guest says it has. @throws if there is no answer, as in an image that does not run the program. */
  async report(): Promise<GuestReport> {
    const { cpus, memory, pci, mmio, blocks } = readReport(await this.#ask({ ask: 'report' }, REPORT_MS))
    return {
      booted: true,
      paused: false,
      crashed: false,
      cpus: { online: cpus },
      memory,
      // Of which line each has the machine knows, whose slots they are.
      mmio: mmio.map(({ base, size }) => ({ base: BigInt(base), size: BigInt(size), irq: 0 })),
      pci: pci.filter((address) => address.startsWith('0000:')).map(parseAddress),
      blocks,
    }
  }

  /** Runs a program in the guest to its end. */
  execute(argv: readonly string[], { timeoutMs = 30_000 }: { timeoutMs?: number | undefined } = {}): Promise<Executed> {
    return this.#ask<Executed>({ ask: 'execute', argv, timeoutMs }, timeoutMs + REPORT_MS)
  }

  async #ask<T>(ask: Ask, timeoutMs: number): Promise<T> {
    const signal = AbortSignal.timeout(timeoutMs)
    const stream = await this.#connect(AGENT_PORT, { signal })
    const onAbort = () => void stream.destroy(new Error(`guest ${ask.ask}: no answer within ${timeoutMs} ms`))
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      stream.write(`${JSON.stringify(ask)}\n`)
      const answer = JSON.parse(await readAll(stream)) as Answer<T>
      if ('error' in answer) throw new Error(`guest ${ask.ask}: ${answer.error}`)
      return answer.ok
    } finally {
      signal.removeEventListener('abort', onAbort)
      stream.destroy()
    }
  }
}

/** It comes from a guest, which may say anything. */
function readReport(value: unknown): LinuxReport {
  const result = v.safeParse(Report, value)
  if (result.success) return result.output
  const [issue] = result.issues
  throw new Error(`guest report: ${v.getDotPath(issue) ?? 'it'}: ${issue.message}`)
}

const Count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const Address = v.pipe(v.string(), v.regex(/^0x[0-9a-f]{1,16}$/))
const Report = v.object({
  cpus: v.array(Count),
  memory: Count,
  pci: v.array(v.string()),
  mmio: v.array(v.object({ base: Address, size: Address })),
  blocks: v.array(v.object({ name: v.string(), serial: v.nullable(v.string()), size: Count })),
})

async function readAll(stream: Duplex): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    length += chunk.length
    if (length > MAX_ANSWER) throw new Error(`guest: an answer of more than ${MAX_ANSWER} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

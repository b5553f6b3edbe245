// Joins two parties. Each direction is carried by itself: what one says is written to the other no faster than the other takes it, and
// its EOF is the other's EOF. The relay ends when both directions have, when a party is over or breaks, or when it is told to.
import type { Party } from './party.js'

export interface RelayOptions {
  /** Cuts both off. */
  signal: AbortSignal
  /** Once one direction has ended: how long the other one may carry nothing before both are closed. Default: for ever. */
  lingerMs?: number | undefined
  /** Calls `fn` once, after `ms`, unless the returned function is called first. */
  setTimer?: ((ms: number, fn: () => void) => () => void) | undefined
}

export interface Relayed {
  /** Bytes that the first party said. */
  readonly forth: number
  /** Bytes that the second one said. */
  readonly back: number
  /** Absent when everything ended in order. */
  readonly broken?: { readonly party: Party; readonly error: Error }
}

type End = { readonly broken?: Relayed['broken'] }

/** Owns both parties: nothing of either is open when it resolves. It never rejects. */
export async function relay(a: Party, b: Party, options: RelayOptions): Promise<Relayed> {
  const { signal, lingerMs, setTimer = systemTimer } = options
  let onIdle = () => {}
  let cancelIdle = () => {}
  const idle = new Promise<void>((resolve) => {
    onIdle = resolve
  })
  const progress = () => {
    if (lingerMs === undefined || !(forth.ended || back.ended)) return
    cancelIdle()
    cancelIdle = setTimer(lingerMs, onIdle)
  }
  const forth = new Carrier(a, b, progress)
  const back = new Carrier(b, a, progress)
  let onAbort = () => {}
  const aborted = new Promise<void>((resolve) => {
    onAbort = () => {
      void Promise.all([a.destroy(), b.destroy()])
      resolve()
    }
  })
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort)
  try {
    const brokenBy = (party: Party): Promise<End> => party.broken.then((error) => ({ broken: { party, error } }))
    const end = await Promise.race<End>([
      brokenBy(a),
      brokenBy(b),
      Promise.all([forth.done, back.done]).then(() => ({})),
      Promise.race([a.over, b.over, idle, aborted]).then(() => ({})),
    ])
    forth.stop()
    back.stop()
    if (signal.aborted) await Promise.all([a.destroy(), b.destroy()])
    else await part(a, b, end)
    return { forth: forth.bytes, back: back.bytes, ...(end.broken && !signal.aborted && { broken: end.broken }) }
  } finally {
    cancelIdle()
    signal.removeEventListener('abort', onAbort)
  }
}

async function part(a: Party, b: Party, { broken }: End): Promise<void> {
  if (broken === undefined) await Promise.all([a.close(), b.close()])
  else await Promise.all([broken.party.destroy(), (broken.party === a ? b : a).abandon(broken.error)])
}

/** One direction. */
class Carrier {
  bytes = 0
  /** The source has said everything. */
  ended = false
  /** All of it has gone out, EOF included. May never resolve. */
  readonly done: Promise<void>
  readonly #stop: () => void

  constructor(from: Party, to: Party, progress: () => void) {
    const { source } = from
    const { sink } = to
    const onData = (chunk: Buffer | string) => {
      const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk
      this.bytes += bytes.length
      progress()
      // What nobody takes any more is let go, so that its sender comes to an end.
      if (sink.writable && !sink.write(bytes)) source.pause()
    }
    const goOn = () => void source.resume()
    this.done = new Promise((resolve) => {
      const onEnd = () => {
        this.ended = true
        progress()
        to.endSink().then(resolve)
      }
      if (source.readableEnded) queueMicrotask(onEnd)
      else source.once('end', onEnd)
    })
    source.on('data', onData)
    sink.on('drain', goOn).on('close', goOn)
    this.#stop = () => {
      source.off('data', onData)
      sink.off('drain', goOn).off('close', goOn)
    }
  }

  /** Nothing is carried from here on. */
  stop(): void {
    this.#stop()
  }
}

function systemTimer(ms: number, fn: () => void): () => void {
  const timer = setTimeout(fn, ms)
  return () => clearTimeout(timer)
}

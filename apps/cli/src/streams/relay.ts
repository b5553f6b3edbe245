// Joins two parties. Each direction is carried by itself: what one says is written to the other no faster than the other takes it, and
// its EOF is the other's EOF. The relay ends when both directions have, when a party is over or breaks, when what is still to be said to
// a party without half-close that has ended has been said, or when it is told to. A party that takes no more is heard to its end first.
import type { Party } from './party.js'

/** How long a party that has ended without half-close may take nothing of what is still said to it. */
const STALL_MS = 5_000

export interface RelayOptions {
  /** Cuts both off. */
  signal: AbortSignal
  /** Once one direction has ended: how long the other one may carry nothing before both are closed. Default: for ever. */
  lingerMs?: number | undefined
  /** How long a party that has ended without half-close may take nothing of what the other one has for it. Default 5 s. */
  stallMs?: number | undefined
  /** Calls `fn` once, after `ms`, unless the returned function is called first. */
  setTimer?: ((ms: number, fn: () => void) => () => void) | undefined
}

export interface Broken {
  readonly party: Party
  readonly error: Error
}

export interface Relayed {
  /** Bytes that the second party took of the first. */
  readonly forth: number
  /** Bytes that the first one took of the second. */
  readonly back: number
  /** Absent when everything ended in order: all that was read of one has been taken by the other. */
  readonly broken?: Broken
  /** The signal cut it off: whatever else was to be said is lost. */
  readonly cut?: true
}

interface End {
  readonly broken?: Broken
  /** Who needs nothing more of what was said to it. */
  readonly over?: Party
  readonly cut?: true
}

/** Owns both parties: nothing of either is open when it resolves. It never rejects. */
export async function relay(a: Party, b: Party, options: RelayOptions): Promise<Relayed> {
  const { signal, lingerMs, stallMs = STALL_MS, setTimer = systemTimer } = options
  let onSilence = () => {}
  let cancelTimer = () => {}
  const silence = new Promise<void>((resolve) => {
    onSilence = resolve
  })
  let settled = false
  const progress = () => {
    cancelTimer()
    cancelTimer = () => {}
    const ms = settled ? undefined : silenceMs()
    if (ms !== undefined) cancelTimer = setTimer(ms, onSilence)
  }
  const forth = new Carrier(a, b, progress)
  const back = new Carrier(b, a, progress)
  /** Carries into a party that has ended without half-close, and may take no more. */
  const last = new Set<Carrier>()
  for (const carrier of [forth, back]) {
    void carrier.to.lastCall.then(() => {
      last.add(carrier)
      progress()
    })
    void carrier.to.refused.then((error) => carrier.refuse(error))
  }

  /** A party that is over ends the relay, after the other one has said what has to be heard. */
  async function overBy(carrier: Carrier): Promise<End> {
    const { from, to } = carrier
    await to.over
    if (from.mustBeHeard) {
      carrier.refuse(goneError())
      last.add(carrier)
      progress()
      await carrier.heard
    }
    return { over: to }
  }

  /** How long nothing may move from here on, before it is the end; undefined: for ever. */
  function silenceMs(): number | undefined {
    const limits = [...last].map((carrier) => (carrier.busy ? stallMs : carrier.finished ? undefined : carrier.from.lastWordsMs))
    // Bytes that wait for a slow reader are not the other's silence.
    if ((forth.ended || back.ended) && forth.pending + back.pending === 0) limits.push(lingerMs)
    const shortest = Math.min(...limits.map((ms) => ms ?? Number.POSITIVE_INFINITY))
    return Number.isFinite(shortest) ? shortest : undefined
  }

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
    let end = await Promise.race<End>([
      brokenBy(a),
      brokenBy(b),
      Promise.all([forth.done, back.done]).then(() => ({})),
      overBy(back),
      overBy(forth),
      silence.then(() => {
        const stuck = [...last].find(({ busy }) => busy)
        return stuck ? { broken: { party: stuck.to, error: takesNoMore() } } : {}
      }),
      aborted.then(() => ({ cut: true })),
    ])
    settled = true
    cancelTimer()
    forth.stop()
    back.stop()
    if (signal.aborted) await Promise.all([a.destroy(), b.destroy()])
    else await part(a, b, end)
    // It may have broken only while it was being closed.
    const lost = [forth, back].find(({ pending, lost, to }) => pending + lost > 0 && !(to === end.over && to.needNotTakeAll))
    if (lost && !end.broken) {
      const error = lost.refused ?? lost.to.sink.errored ?? (lost.to === end.over ? goneError() : takesNoMore())
      end = { broken: { party: lost.to, error } }
    }
    const told = signal.aborted ? (end.cut || end.broken) && { cut: true as const } : end.broken && { broken: end.broken }
    return { forth: forth.bytes, back: back.bytes, ...told }
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

async function part(a: Party, b: Party, { broken }: End): Promise<void> {
  if (broken === undefined) await Promise.all([a.close(), b.close()])
  else await Promise.all([broken.party.destroy(), (broken.party === a ? b : a).abandon(broken.error)])
}

function takesNoMore(): Error {
  return Object.assign(new Error('it has ended its side and takes no more'), { code: 'ETIMEDOUT' })
}

function goneError(): Error {
  return Object.assign(new Error('it has closed'), { code: 'EPIPE' })
}

/** One direction. */
class Carrier {
  /** Taken by the sink. */
  bytes = 0
  /** Read of the source, and not taken by the sink yet. */
  pending = 0
  /** Read of the source, and never to be taken. */
  lost = 0
  /** Why the sink takes no more. */
  refused: Error | undefined
  /** The source has said everything. */
  ended = false
  /** All of it has gone out, EOF included. */
  finished = false
  /** When that is so. May never resolve. */
  readonly done: Promise<void>
  /** After a refusal: when the source has ended, or has said something that is lost. May never resolve. */
  readonly heard: Promise<void>
  #onHeard = () => {}
  readonly #progress: () => void
  readonly #stop: () => void

  constructor(
    readonly from: Party,
    readonly to: Party,
    progress: () => void,
  ) {
    const { source } = from
    const { sink } = to
    this.#progress = progress
    this.heard = new Promise((resolve) => {
      this.#onHeard = resolve
    })
    const onData = (chunk: Buffer | string) => {
      const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk
      if (this.refused) {
        this.lost += bytes.length
        this.#onHeard()
        return progress()
      }
      this.pending += bytes.length
      progress()
      const onTaken = (error?: Error | null) => {
        if (error || this.refused) return
        this.pending -= bytes.length
        this.bytes += bytes.length
        progress()
      }
      // What nobody takes any more is let go, so that its sender comes to an end.
      if (sink.writable && !sink.write(bytes, onTaken)) source.pause()
    }
    const goOn = () => void source.resume()
    this.done = new Promise((resolve) => {
      const onEnd = () => {
        this.ended = true
        if (this.refused) this.#onHeard()
        progress()
        to.endSink().then(() => {
          this.finished = true
          resolve()
        })
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

  /** The sink has something to take. */
  get busy(): boolean {
    return !this.finished && !this.refused && (this.ended || this.pending > 0)
  }

  /** The sink takes no more: what its source says goes nowhere, so that it comes to its end. */
  refuse(error: Error): void {
    if (this.refused) return
    this.refused = error
    this.lost += this.pending
    this.pending = 0
    if (this.ended || this.lost > 0) this.#onHeard()
    this.from.source.resume()
    this.#progress()
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

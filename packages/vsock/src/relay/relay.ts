import { onAbort } from '@upcall/foundation/abort'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import { Driver } from '@upcall/foundation/driver'
import { otherSide, type Side, sides } from './direction.js'
import type { RelayEnd } from './end.js'
import { type Carried, type RelayEffect, type RelayEvent, type Relayed, RelayMachine } from './machine.js'

/** How long an end that has ended without half-close may take nothing of what there is for it. */
const STALL_MS = 5_000

export interface RelayOptions {
  /** Cuts both ends off. */
  readonly signal?: AbortSignal | undefined
  /** After one direction has ended: how long the other one may carry nothing before both are closed. Default: for ever. */
  readonly lingerMs?: number | undefined
  /** How long an end that has ended without half-close may take nothing of what the other one has for it. Default 5 s. */
  readonly stallMs?: number | undefined
  readonly clock?: Clock | undefined
  /** Is given, at once, a function that tells what has been carried so far. The relay does no work for it. */
  readonly onOpen?: ((carried: () => Carried) => void) | undefined
}

/**
 * Joins two ends, each direction by itself: what one end says is written to the other no faster than that one takes it, and EOF of one
 * is EOF of the other. Owns both ends: nothing of them is open when it resolves. It never rejects.
 */
export function relay(near: RelayEnd, far: RelayEnd, options: RelayOptions = {}): Promise<Relayed> {
  const { signal, lingerMs, stallMs = STALL_MS, clock = systemClock, onOpen } = options
  return new Promise((resolve) => {
    const ends = { near, far }
    const machine = new RelayMachine({ near, far, lingerMs, stallMs }, clock.now())
    onOpen?.(() => machine.carried)
    const driver: Driver<RelayEvent, RelayEffect> = new Driver({ machine, clock, perform })
    const tell = driver.tell.bind(driver)
    const stops = sides.map((side) => followEnd(ends, side, tell))
    const unlisten = onAbort(signal, () => tell({ type: 'abort' }))
    if (signal?.aborted) tell({ type: 'abort' })

    function perform(effect: RelayEffect): void {
      switch (effect.type) {
        case 'write': {
          const { to, chunk } = effect
          const { writable } = ends[to]
          const onTaken = (error?: Error | null) => {
            if (!error) tell({ type: 'taken', to, length: chunk.length })
          }
          // What a closed sink does not take any more is dropped, so that its source comes to an end.
          if (writable.writable && !writable.write(chunk, onTaken)) ends[otherSide(to)].readable.pause()
          return
        }
        case 'end':
          void ends[effect.to].end().then(() => tell({ type: 'flushed', to: effect.to }))
          return
        case 'drain':
          ends[effect.from].readable.resume()
          return
        case 'stop':
          for (const stop of stops) stop()
          return
        case 'close':
        case 'destroy':
          parting(effect.side, ends[effect.side][effect.type]())
          return
        case 'abandon':
          parting(effect.side, ends[effect.side].abandon(effect.error))
          return
        case 'settle':
          driver.stop()
          unlisten()
          resolve(effect.result)
      }
    }

    function parting(side: Side, done: Promise<void>): void {
      void done.then(() => tell({ type: 'parted', side, error: ends[side].writable.errored ?? undefined }))
    }
  })
}

/** Tells what one end says and what becomes of it. Returns how to stop reading it. */
function followEnd(ends: Readonly<Record<Side, RelayEnd>>, side: Side, tell: (event: RelayEvent) => void): () => void {
  const { readable, gone, refused, broken } = ends[side]
  const to = otherSide(side)
  const { writable } = ends[to]
  const onData = (chunk: Buffer | string) =>
    tell({ type: 'data', to, chunk: typeof chunk === 'string' ? Buffer.from(chunk) : chunk })
  const onEnd = () => tell({ type: 'end', to })
  const goOn = () => void readable.resume()
  void refused.then((error) => tell({ type: 'refused', to: side, error }))
  void gone.then(() => tell({ type: 'gone', side }))
  void broken.then((error) => tell({ type: 'broken', side, error }))
  if (readable.readableEnded) queueMicrotask(onEnd)
  else readable.once('end', onEnd)
  readable.on('data', onData)
  writable.on('drain', goOn).on('close', goOn)
  return () => {
    readable.off('data', onData)
    writable.off('drain', goOn).off('close', goOn)
  }
}

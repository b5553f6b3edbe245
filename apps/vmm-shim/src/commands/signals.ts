const SIGNALS = ['SIGINT', 'SIGTERM'] as const

export interface NextSignal extends Disposable {
  /** Resolves with the name of the first signal that asks this process to end. */
  readonly signalled: Promise<(typeof SIGNALS)[number]>
}

/** Takes the signals that ask this process to end, until it is disposed of. */
export function nextSignal(): NextSignal {
  let listener: (signal: NodeJS.Signals) => void = () => {}
  const signalled = new Promise<(typeof SIGNALS)[number]>((resolve) => {
    listener = (signal) => resolve(signal as (typeof SIGNALS)[number])
  })
  for (const signal of SIGNALS) process.on(signal, listener)
  return {
    signalled,
    [Symbol.dispose]() {
      for (const signal of SIGNALS) process.off(signal, listener)
    },
  }
}

/** Uncaught exceptions, which a test runner would call failures. */
export interface Uncaught extends Disposable {
  /** Resolves with the next one, or with the first that came before. */
  next(): Promise<unknown>
}

/** Catches uncaught exceptions until it is disposed of. */
export function catchUncaught(): Uncaught {
  const others = process.listeners('uncaughtException')
  const caught: unknown[] = []
  let wake = () => {}
  const listener = (error: unknown) => {
    caught.push(error)
    wake()
  }
  process.removeAllListeners('uncaughtException')
  process.on('uncaughtException', listener)
  return {
    async next() {
      if (caught.length === 0)
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      return caught.shift()
    },
    [Symbol.dispose]() {
      process.removeAllListeners('uncaughtException')
      for (const other of others) process.on('uncaughtException', other)
    },
  }
}

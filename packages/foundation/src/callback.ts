/**
 * Calls a function of the caller's. What it throws is an uncaught exception a moment later, as with a listener of an event emitter, so that it
 * leaves nothing half done here.
 */
export function callBack<Args extends readonly unknown[]>(fn: ((...args: Args) => void) | undefined, ...args: Args): void {
  try {
    fn?.(...args)
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}

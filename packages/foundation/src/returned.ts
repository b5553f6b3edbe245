// What the functions of others return: they come from outside, some of them without types.

/** @throws What the value throws when it is looked at. */
export function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as Partial<PromiseLike<unknown>>).then === 'function'
}

/** For a promise that is a mistake already: its rejection must not be an unhandled one. */
export function ignoreRejection(value: unknown): void {
  if (isPromise(value)) Promise.resolve(value).catch(() => {})
}

/** The value, of a function that nothing waits for. @throws TypeError if it is a promise, whose rejection is ignored. */
export function synchronous<T>(name: string, value: T): T {
  if (!isPromise(value)) return value
  ignoreRejection(value)
  throw new TypeError(`${name}: must not return a promise`)
}

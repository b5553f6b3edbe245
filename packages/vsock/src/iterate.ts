/** An iterator over what `next` gives. Leaving its loop ends the iterator, and touches nothing else. */
export function iterateBy<T>(next: () => Promise<IteratorResult<T, undefined>>): AsyncIterableIterator<T> {
  let done = false
  const end = { done: true, value: undefined } as const
  return {
    next: () => (done ? Promise.resolve(end) : next()),
    return: () => {
      done = true
      return Promise.resolve(end)
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}

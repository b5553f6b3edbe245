/** The flags contradict each other, or name what cannot be used. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

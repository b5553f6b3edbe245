/**
 * Calls what belongs to the application: its listeners, as a rule. What they throw is the application's affair, as with any emitter
 * (`uncaughtException`), and does not end the work that they are told of: a conversation with a VMM, a trip to the rings.
 */
export function tell(call: () => void): void {
  try {
    call()
  } catch (error) {
    process.nextTick(() => {
      throw error
    })
  }
}

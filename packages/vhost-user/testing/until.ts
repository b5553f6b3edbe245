import { setImmediate as turn } from 'node:timers/promises'

/**
 * Runs `step` and the event loop in turn until something holds.
 *
 * @param options - `ms`: longer than any busy machine needs, the end of a test that hangs.
 */
export async function until(
  holds: () => unknown,
  { ms, step = () => {}, what = holds.toString() }: { ms: number; step?: () => void; what?: string | undefined },
): Promise<void> {
  const deadline = performance.now() + ms
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`)
    step()
    await turn()
  }
}

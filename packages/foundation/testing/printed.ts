// NODE_DEBUG is read when Node starts, so a test cannot switch it on. What would be printed is caught instead. In a test file:
//
//   vi.mock('node:util', async (original) => (await import('@upcall/foundation/testing/printed')).catchDebug(original))

/** Every line that `debuglog` would have printed, `<section>: <text>`. The test empties it. */
export const printed: string[] = []

/** `node:util` with every debug section switched on and caught in {@link printed}. */
export async function catchDebug(original: () => Promise<unknown>): Promise<object> {
  const util = (await original()) as typeof import('node:util')
  const debuglog = (section: string) =>
    Object.assign((text: string, ...values: unknown[]) => void printed.push(`${section}: ${util.format(text, ...values)}`), {
      enabled: true,
    })
  return { ...util, debuglog }
}

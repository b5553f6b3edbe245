/**
 * A microvm has only the PIT to find out how fast its clock runs, and hangs where that fails: often, on a busy host. What another
 * guest has measured on this host is as good.
 */
export function knownClock(log) {
  // Detected at first, refined a second later unless the host is too busy.
  const measured = [...(log ?? '').matchAll(/tsc: (?:Detected|Refined TSC clocksource calibration:) ([\d.]+) MHz/g)]
  const mhz = measured.at(-1)?.[1]
  return mhz === undefined ? '' : `tsc_early_khz=${Math.round(mhz * 1000)}`
}

import { spawnSync } from 'node:child_process'

/** Whether Debian's package `prometheus` is installed. In CI it has to be. */
export const hasPromtool = process.env.CI !== undefined || spawnSync('promtool', ['--version']).status === 0

/** Beside the name of a test that is skipped. */
export const needsPromtool = hasPromtool ? '' : " (skipped: needs promtool, of Debian's package prometheus)"

/** Runs promtool. @returns its status and all that it said. */
export function promtool(args: readonly string[], input = ''): { status: number | null; said: string } {
  const { status, stdout, stderr, error } = spawnSync('promtool', args, { input, encoding: 'utf8', timeout: 20_000 })
  if (error !== undefined) throw error
  return { status, said: stdout + stderr }
}

/** What promtool says of a scrape, without what it has against the names of prom-client's own metrics. */
export function promtoolSays(scrape: string): string[] {
  const { said } = promtool(['check', 'metrics'], scrape)
  return said.split('\n').filter((line) => line !== '' && !/^nodejs_|^process_/.test(line))
}

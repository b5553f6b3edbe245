import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { serveGuest, start, upcall } from '../../testing/harness.js'

const README = new URL('../../../../README.md', import.meta.url)

/** Without what differs from run to run: times, host ports, paths. */
function steady(text: string): string[] {
  return text.split('\n').map((line) =>
    line
      .replace(/^[\d:.]+ #\d+/, '#1')
      .replace(/\([\d.]+ ms\)/, '(… ms)')
      .replace(/OK \d+/, 'OK n')
      .replace(/unix:\S+\)/, 'unix:…)'),
  )
}

test('the trace in the README is what the program prints', async () => {
  const [, shown] = /readme-trace\.test\.ts -->\n\n```text\n([\s\S]*?)\n```/.exec(readFileSync(README, 'utf8')) ?? []
  await using guest = await serveGuest('hvsock')
  const listen = `hvsock://${guest.path}t:219`
  const tracing = start(['--target', guest.target, 'trace', '--listen', listen])
  await tracing.stdout.has('listening')
  expect((await upcall(['--target', listen, '--arch', 'x86_64', 'pci', 'remove', '00:09.0'])).status).toBe(1)
  await tracing.stdout.has('gone')
  tracing.interrupt('SIGTERM')
  await tracing.status
  const printed = steady(tracing.stdout.text).filter((line) => line.startsWith('#1'))
  const wanted = steady(shown!)
  expect(wanted.length).toBeGreaterThan(8)
  expect(printed.slice(0, wanted.length)).toEqual(wanted)
})

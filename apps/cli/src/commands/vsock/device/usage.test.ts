import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { upcall } from '../../../../testing/harness.js'
import { dir } from '../../../../testing/peers.js'

test.each([
  [[], /--socket is missing\. It is the Unix socket that QEMU connects to/],
  [['--socket', '/s'], /--uds-path or --forward-cid is missing/],
  [['--socket', '/s', '--forward-listen', '1'], /--forward-listen: needs --forward-cid/],
  [['--socket=/s', '--uds-path=/u', '--forward-cid=1'], /--forward-cid: does not go with --uds-path/],
  [['--socket=/s', '--uds-path=/u', '--guest-cid=2'], /--guest-cid: must be a whole number from 3/],
  [['--socket=/s', '--uds-path=/u', '--queue-size=3'], /--queue-size: must be a power of two/],
  [['--socket=/s', '--forward-cid=1', '--no-half-close'], /--half-close: is about the clients of --uds-path/],
  [['--vm', 'socket=/s,uds-path=/u', '--config', 'f'], /--vm: does not go with --config/],
  [['--guest-cid', '4', '--vm', 'socket=/s,uds-path=/u'], /--guest-cid: does not go with --vm\. Write guest-cid=… into --vm/],
  [['--half-close', '--config', 'f'], /--half-close: does not go with --config/],
  [['--vm', 'socket=/s'], /uds-path or forward-cid is missing/],
  [['--config', '/nonexistent/vms.yaml'], /--config: .*no such file/],
  [['--socket=/s', '--uds-path=/u', '--timeout', '5s'], /--timeout: .*The deadlines here are/],
  [['--socket=/s', '--uds-path=/u', '--target', 'unix:/x'], /--target: is for the commands/],
  [['--socket=/s', '--uds-path=/u', '--link='], /--link: must be a path/],
  [['--socket=/s', '--uds-path=/u', '--link=/x', '--link-listen=/x'], /--link: has the path of --link-listen/],
  [['--socket=/s', '--uds-path=/u', '--link=/x', '--mode=660'], /--mode: needs --link-listen/],
  [['--socket=/s', '--uds-path=/u', '--link-listen=/x', '--mode=999'], /--mode: must be three octal digits/],
  [['--link', '/x', '--config', 'f'], /--link: does not go with --config\. Write it into the file/],
  [['--socket', '/s', 'vm'], /too many arguments for 'device'\. Expected 0 arguments but got 1\. Add --help/],
])('wrong usage: %j', async (argv, message) => {
  const { status, stderr } = await upcall(['vsock', 'device', ...argv])
  expect(status).toBe(2)
  expect(stderr.text).toMatch(message)
  expect(stderr.lines).toHaveLength(1)
})

test('a wrong file is told with its line and column, under --json, too', async () => {
  const path = join(dir, 'vms.yaml')
  writeFileSync(path, 'vms:\n  - socket: /s\n    uds_path: /u\n    guest_cid: 2\n')
  const { status, stdout } = await upcall(['--json', 'vsock', 'device', '--config', path])
  expect(status).toBe(2)
  expect(stdout.json).toEqual([
    {
      outcome: 'not-sent',
      error: expect.objectContaining({
        code: 'USAGE',
        subject: `${path}:4:16`,
        what: 'vms[0].guest_cid must be a whole number from 3 to 4294967294, got "2"',
      }),
    },
  ])
})

test('the help names every option, its default, and what is not used', async () => {
  const { stdout, status } = await upcall(['vsock', 'device', '--help'])
  expect(status).toBe(0)
  for (const text of [
    '--guest-cid <cid>',
    '(default: 3)',
    '--vm <pairs>',
    '--config <file>',
    '--metrics <address>',
    '--link <path>',
    'trust each other',
    '--to-guest-byte-rate',
    'SIGHUP',
  ])
    expect(stdout.text).toContain(text)
  expect(stdout.text).toMatch(/--queue-size <n>\s+checked, and not used/)
})

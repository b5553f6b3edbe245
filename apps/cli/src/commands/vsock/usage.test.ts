import { describe, expect, test } from 'vitest'
import { upcall } from '../../../testing/harness.js'

describe('usage', () => {
  test.each([
    [['vsock', 'connect'], /missing required argument 'address'/],
    [['vsock', 'connect', 'nowhere'], /the form is unknown/],
    [['vsock', 'connect', 'unix:/x', 'cat'], /"cat": the command takes one address\. Write a program after --exec/],
    [['vsock', 'connect', 'unix:/x', '--exec'], /--exec: no program/],
    [['vsock', 'connect', 'unix:/x', '--to-host'], /--to-host: only a vsock/],
    [['vsock', 'connect', 'unix:/x', '--buffer-size', '1000'], /--buffer-size: only vsock/],
    [['vsock', 'connect', 'vsock://3:1', '--buffer-size', '0'], /--buffer-size: must be at least 1/],
    [['vsock', 'connect', 'unix:/x', '--half-close', '--no-half-close'], /only one of them can be true/],
    [['vsock', 'forward', 'tcp:any', 'tcp:1', '--no-half-close', '--half-close'], /only one of them can be true/],
    [['vsock', 'listen', 'unix:/nonexistent/s', '--half-close', '--half-close'], /Create it first/],
    [['--target', 'unix:/x', 'vsock', 'connect', 'unix:/x'], /--target: is for the commands that talk to a guest/],
    [['vsock', 'listen', 'unix:/x', '--arch', 'x86_64'], /--arch: is for/],
    [['vsock', 'forward', 'tcp:any', 'tcp:1', '-t', 'unix:/x'], /--target: is for/],
    [['vsock', 'cid', '--arch', 'aarch64'], /--arch: is for/],
    [['vsock', 'listen', 'unix:/x', '--as-vmm'], /--as-vmm: only an hvsock/],
    [['vsock', 'listen', 'unix:/x', '--profile', 'firecracker'], /--profile: needs --as-vmm/],
    [['vsock', 'listen', 'hvsock:///x', '--as-vmm', '--profile', 'qemu'], /firecracker, cloud-hypervisor, dragonball/],
    [['vsock', 'listen', 'unix:/x', '--mode', '999'], /octal/],
    [['vsock', 'listen', 'tcp:any', '--mode', '660'], /tcp has no socket file/],
    [['vsock', 'listen', 'unix:/x', '--max', '2'], /--max: needs --keep and --exec/],
    [['vsock', 'listen', 'unix:/x', '--keep', '--timeout', '1s'], /--timeout: bounds the wait/],
    [['vsock', 'forward', 'tcp:any', 'tcp:any'], /<to>: the port to connect to cannot be any/],
    [['vsock', 'connect', 'tcp:0'], /<address>: the port to connect to cannot be any/],
    [['vsock', 'connect', 'vsock://3:any'], /<address>: the port to connect to cannot be any/],
    [['vsock', 'forward', 'tcp:any', 'vsock://any:3'], /<to>: the CID to connect to cannot be any/],
    [['vsock', 'forward', 'tcp:any', 'tcp:1', '--max', '0'], /--max: must be at least 1/],
    [['vsock', 'forward', 'unix:/nonexistent/s', 'tcp:1'], /<from>: listen unix:.*Create it first/],
    [['vsock', 'listen', 'vsock://any:any'], /<address>: listen vsock:\/\/any:any: native AF_VSOCK is switched off/],
  ])('wrong usage: %j', async (argv, message) => {
    const { status, stderr } = await upcall(argv)
    expect(status).toBe(2)
    expect(stderr.text).toMatch(message)
    expect(stderr.lines).toHaveLength(1)
  })

  test.each([
    ['vsock.connect', ['vsock', 'connect', 'nowhere']],
    ['vsock.listen', ['vsock', 'listen', 'unix:/nonexistent/s']],
  ])('stdout belongs to the stream: wrong usage is reported on stderr: %s', async (op, argv) => {
    const { status, stdout, stderr } = await upcall(['--json', ...argv])
    expect([status, stdout.text]).toEqual([2, ''])
    expect(stderr.json).toEqual([
      { op, outcome: 'not-sent', error: expect.objectContaining({ code: 'USAGE', subject: '<address>' }) },
    ])
  })
})

test('the help says what hvsock cannot do, and no example of it waits for EOF', async () => {
  const { stdout } = await upcall(['vsock', '--help'])
  expect(stdout.text).toMatch(/What hvsock:\/\/ cannot do: [\s\S]*--half-close/)
  for (const command of ['connect', 'listen', 'forward']) stdout.write((await upcall(['vsock', command, '--help'])).stdout.text)
  const examples = stdout.lines.filter((line) => line.startsWith('  $ '))
  expect(examples.length).toBeGreaterThan(10)
  expect(examples.filter((line) => /connect hvsock:.* < /.test(line) && !line.includes('--half-close'))).toEqual([])
})

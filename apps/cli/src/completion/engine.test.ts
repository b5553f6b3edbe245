import { expect, test } from 'vitest'
import { upcall } from '../../testing/harness.js'
import { addressesOn, type List } from './addresses.js'

async function answer(...words: string[]): Promise<{ values: string[]; flags: string }> {
  const { stdout, stderr, status } = await upcall(['__complete', '--', ...words])
  expect([status, stderr.text]).toEqual([0, ''])
  const last = stdout.lines.at(-1) ?? ''
  expect(last[0]).toBe(':')
  for (const line of stdout.lines.slice(0, -1)) expect(line.split('\t')).toHaveLength(2)
  return { values: stdout.lines.slice(0, -1).map((line) => line.split('\t')[0] ?? ''), flags: last.slice(1) }
}

test.each<[string[], string[]]>([
  [['st'], ['status']],
  [
    ['cpu', ''],
    ['add', 'remove', 'help'],
  ],
  [['--json', '-t', 'unix:/x', '--timeout', '5s', 'cpu', 'r'], ['remove']],
  [
    ['--arch', ''],
    ['x86_64', 'aarch64'],
  ],
  [['status', '--arch', 'a'], ['aarch64']],
  [['status', '--arch=a'], ['--arch=aarch64']],
  [['serve', '--profile', 'fire'], ['firecracker']],
  [['mmio', 'add', '--ba'], ['--base']],
  [['mmio', 'add', '--base', ''], []],
  [
    ['mmio', 'add', '--base', '1', '--'],
    ['--size', '--irq', '--help', '--version', '--target', '--arch', '--timeout', '--json', '--verbose'],
  ],
  [['help', 'vs'], ['vsock']],
  [
    ['completion', ''],
    ['bash', 'zsh', 'fish'],
  ],
  [['vsock', 'listen', 'systemd:x', '--half-close', '--half'], []],
  // A stream takes no --target.
  [
    ['vsock', 'connect', '--t'],
    ['--to-host', '--timeout'],
  ],
  [['-t', 'h'], ['hvsock://']],
  [['--target', 't'], []],
  [['vsock', 'forward', 't'], ['tcp:']],
  [['vsock', 'forward', 'tcp:80', 's'], []],
  [['vsock', 'listen', 's'], ['systemd']],
  [
    ['vsock', 'connect', 'vsock://'],
    ['vsock://local:', 'vsock://host:'],
  ],
  [['vsock', 'listen', 'vsock://a'], ['vsock://any:']],
  [['pci', 'add', '00:05.0', '1'], []],
  [
    ['vsock', 'cid', ''],
    ['--help', '--version', '--timeout', '--json', '--verbose'],
  ],
  [['--', '--js'], []],
  [['bogus', '--js'], ['--json']],
  [['__'], []],
])('%j', async (words, expected) => {
  expect((await answer(...words)).values).toEqual(expected)
})

test('files are left to the shell', async () => {
  for (const words of [
    ['batch', ''],
    ['decode', '/et'],
    ['vsock', 'device', '--config', ''],
    ['vsock', 'device', '--config=/et'],
    ['vsock', 'connect', 'unix:/x', '--exec', 'ca'],
    ['vsock', 'connect', 'unix:/x', '--exec', 'cat', '--js'],
  ])
    expect(await answer(...words)).toEqual({ values: [], flags: 'files' })
  expect((await answer('cpu', '')).flags).toBe('')
  expect((await answer('-t', 'h')).flags).toBe('unfinished')
})

test('socket files and folders of an address, and nothing else', () => {
  const entry = (name: string, kind: 'folder' | 'socket' | 'file') => ({
    name,
    isDirectory: () => kind === 'folder',
    isSocket: () => kind === 'socket',
    isSymbolicLink: () => false,
  })
  const asked: string[] = []
  const list: List = (folder) => {
    asked.push(folder)
    if (folder === '/no') throw new Error('not readable')
    return [
      entry('vm.sock', 'socket'),
      entry('vms', 'folder'),
      entry('vm.log', 'file'),
      entry('.v', 'socket'),
      entry('b', 'socket'),
    ]
  }
  const of = (typed: string, of: 'guest' | 'stream' = 'guest') => {
    const { candidates, unfinished } = addressesOn(list)({ type: 'address', of, listens: false }, typed)
    return [candidates.map(({ value }) => value), unfinished]
  }
  expect(of('hvsock:///run/v')).toEqual([['hvsock:///run/vm.sock:219', 'hvsock:///run/vms/'], true])
  expect(of('hvsock:///run/vm.', 'stream')).toEqual([['hvsock:///run/vm.sock:'], true])
  expect(of('unix:/run/vm.')).toEqual([['unix:/run/vm.sock'], false])
  expect(of('unix:/run/.')).toEqual([['unix:/run/.v'], false])
  expect(of('unix:')).toEqual([['unix:b', 'unix:vm.sock', 'unix:vms/'], true])
  expect(of('unix:/v')).toEqual([['unix:/vm.sock', 'unix:/vms/'], true])
  expect(of('unix:/no/v')).toEqual([[], false])
  expect(asked).toEqual(['/run', '/run', '/run', '/run', '.', '/', '/no'])
})

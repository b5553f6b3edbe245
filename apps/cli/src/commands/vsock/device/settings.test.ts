import { describe, expect, test } from 'vitest'
import * as yaml from 'yaml'
import { parseConfig } from './config-file.js'
import { type DeviceSettings, settingsOfAll } from './settings.js'
import { parseVm } from './vm-argument.js'

const NONE = { allow: undefined, maxConnections: undefined, connectionRate: undefined, byteRate: undefined }
const DEFAULTS = {
  guestCid: 3,
  bufferBytes: 262_144,
  groups: ['default'],
  hostCids: [2],
  handshakeTimeoutMs: 2000,
  lingerMs: 8000,
  halfClose: true,
  seqpacket: false,
  maxConnections: 1023,
  policy: { fromGuest: NONE, toGuest: NONE },
}

const vms = (...texts: string[]): DeviceSettings[] => settingsOfAll(texts.map(parseVm)).map(({ settings }) => settings)
const vm = (more: string): DeviceSettings => vms(`socket=/s,uds-path=/u${more === '' ? '' : ','}${more}`)[0]!
const file = (text: string): DeviceSettings[] =>
  settingsOfAll(parseConfig(text, 'vms.yaml', yaml).devices).map(({ settings }) => settings)

describe('--vm', () => {
  test('the keys of vhost-device-vsock, with hyphens and with underscores; what is left out has its default', () => {
    expect(vms('socket=/tmp/vhost3.socket,uds_path=/tmp/vm3.vsock')).toEqual([
      { ...DEFAULTS, socket: '/tmp/vhost3.socket', backend: { kind: 'unix', path: '/tmp/vm3.vsock' } },
    ])
    const all = 'groups=group2+group3,guest-cid=5,socket=/s,uds-path=/u,tx_buffer_size=32768,queue-size=256'
    expect(vms(all)).toEqual([
      {
        ...DEFAULTS,
        guestCid: 5,
        socket: '/s',
        backend: { kind: 'unix', path: '/u' },
        bufferBytes: 32_768,
        groups: ['group2', 'group3'],
      },
    ])
  })

  test('forward-cid: every CID means the host, and the ports are those of this machine', () => {
    expect(vms('guest-cid=6,socket=/s,forward-cid=1,forward-listen=1234+4321,queue-size=2048')).toEqual([
      { ...DEFAULTS, guestCid: 6, socket: '/s', backend: { kind: 'vsock', cid: 1, listen: [1234, 4321] }, hostCids: 'any' },
    ])
    expect(vms('socket=/s,forward-cid=1')[0]!.backend).toEqual({ kind: 'vsock', cid: 1, listen: [] })
    expect(vms('guest-cid=4,socket=/s,forward-cid=1,host-cids=3')[0]!.hostCids).toEqual([3])
  })

  test('what vhost-device-vsock has not', () => {
    expect(
      vm(
        'host-cids=2+1,handshake-timeout=500ms,linger=1m,half-close=no,seqpacket=yes,max-connections=7,groups=,tx-buffer-size=64K',
      ),
    ).toMatchObject({
      hostCids: [2, 1],
      handshakeTimeoutMs: 500,
      lingerMs: 60_000,
      halfClose: false,
      seqpacket: true,
      maxConnections: 7,
      groups: [],
      bufferBytes: 65_536,
    })
  })

  test('policy', () => {
    const { fromGuest, toGuest } = vm(
      'from-guest-allow=host+any:5000-5010+4:22+group/web:80,from-guest-connections=0,from-guest-connection-rate=5,' +
        'from-guest-byte-rate=10M,to_guest_allow=,to_guest_connections=8,to_guest_connection_rate=1:20,to_guest_byte_rate=1024:64K',
    ).policy
    expect(fromGuest).toEqual({
      allow: [
        { peer: 'host' },
        { peer: 'any', ports: [[5000, 5010]] },
        { peer: 4, ports: [[22, 22]] },
        { peer: { group: 'web' }, ports: [[80, 80]] },
      ],
      maxConnections: 0,
      connectionRate: { perSecond: 5 },
      byteRate: { perSecond: 10 * 2 ** 20 },
    })
    expect(toGuest).toEqual({
      allow: [],
      maxConnections: 8,
      connectionRate: { perSecond: 1, burst: 20 },
      byteRate: { perSecond: 1024, burst: 65_536 },
    })
  })

  test.each([
    ['', /^--vm "": "" is not key=value/],
    ['socket', /"socket" is not key=value\. Write pairs/],
    ['cid=3', /there is no key "cid"\. The keys are guest-cid, socket, /],
    ['socket=/a,socket=/b', /: socket is there twice$/],
    ['uds-path=/u', /: socket is missing\. It is the Unix socket that QEMU/],
    ['socket=/s', /: uds-path or forward-cid is missing/],
    ['socket=/s,forward-listen=1', /: forward-listen needs forward-cid$/],
    ['socket=/s,uds-path=/u,forward-cid=1', /: forward-cid does not go with uds-path/],
    ['socket=/s,uds-path=/u,forward-listen=1', /: forward-listen does not go with uds-path/],
    ['socket=/s,forward-cid=1,seqpacket=yes', /: seqpacket is about the clients of uds-path/],
    ['socket=/s,forward-cid=1,half-close=no', /: half-close is about the clients of uds-path/],
    ['socket=,uds-path=/u', /: socket must be a path, got ""/],
    ['socket=/s,uds-path=/u,guest-cid=2', /: guest-cid must be a whole number from 3 to 4294967294, got "2"/],
    ['socket=/s,uds-path=/u,guest-cid=0x3', /: guest-cid must be a whole number/],
    ['socket=/s,uds-path=/u,queue-size=1000', /: queue-size must be a power of two up to 32768, got "1000"/],
    ['socket=/s,uds-path=/u,queue-size=0', /: queue-size must be a power/],
    ['socket=/s,uds-path=/u,queue-size=65536', /: queue-size must be a power/],
    ['socket=/s,uds-path=/u,tx-buffer-size=4095', /: tx-buffer-size must be a number of bytes from 4096 to 1073741824/],
    ['socket=/s,uds-path=/u,groups=a+', /: groups "" in its list must have a name, got "a\+"/],
    ['socket=/s,uds-path=/u,groups=a+a', /: groups must name groups once each/],
    ['socket=/s,forward-cid=1,forward-listen=1+x', /: forward-listen "x" in its list must be a whole number from 0/],
    ['socket=/s,uds-path=/u,host-cids=', /: host-cids must be any, or CIDs as in 2\+3/],
    ['socket=/s,uds-path=/u,host-cids=2+3', /: host-cids has the guest's own CID 3\. Choose another CID/],
    ['socket=/s,forward-cid=1,guest-cid=7,host-cids=7', /: host-cids has the guest's own CID 7/],
    ['socket=/s,uds-path=/s', /: uds-path is taken: the path \/s is in use above/],
    ['socket=/s,uds-path=/u,linger=5', /: linger must be a number and its unit, up to 24 days: 500ms/],
    ['socket=/s,uds-path=/u,half-close=maybe', /: half-close must be true or false/],
    ['socket=/s,uds-path=/u,from-guest-allow=hosts', /: from-guest-allow "hosts" in its list must be a rule as in host/],
    ['socket=/s,uds-path=/u,from-guest-allow=host:9-8', /must be a rule as in/],
    ['socket=/s,uds-path=/u,from-guest-allow=group/', /must be a rule as in/],
    ['socket=/s,uds-path=/u,to-guest-byte-rate=1000', /: to-guest-byte-rate must be a number of bytes from 1024/],
    ['socket=/s,uds-path=/u,to-guest-connection-rate=1:0', /: to-guest-connection-rate must be a whole number from 1/],
  ])('%s', (text, message) => {
    expect(() => vms(text)).toThrow(message)
  })

  test.each([
    ['guest-cid', 'socket=/a,uds-path=/b', 'socket=/c,uds-path=/d', 'guest-cid is taken: CID 3 is in use above'],
    ['socket', 'socket=/a,uds-path=/b', 'guest-cid=4,socket=/a,uds-path=/d', 'socket is taken: the path /a is in use above'],
    [
      'path for messages',
      'socket=/a,uds-path=/b,seqpacket=yes',
      'guest-cid=4,socket=/c,uds-path=/b_seqpacket',
      'uds-path is taken: ',
    ],
    ['both paths', 'socket=/a,uds-path=/b', 'guest-cid=4,socket=/b,uds-path=/d', 'socket is taken: the path /b is in use above'],
    [
      'forward-listen',
      'socket=/a,forward-cid=1,forward-listen=7+8',
      'guest-cid=4,socket=/b,forward-cid=1,forward-listen=8',
      'port 8',
    ],
  ])('two devices with the same %s', (_, one, two, message) => {
    expect(() => vms(one, two)).toThrow(message)
  })
})

describe('the file', () => {
  test("the README's of vhost-device-vsock, and its other forms", () => {
    const README = `
vms:
    - guest_cid: 3
      socket: /tmp/vhost3.socket
      uds_path: /tmp/vm3.sock
      tx_buffer_size: 65536
      queue_size: 1024
      groups: group1+groupA
    - guest_cid: 4
      socket: /tmp/vhost4.socket
      uds_path: /tmp/vm4.sock
      tx_buffer_size: 32768
      queue_size: 256
      groups: group2+groupB
    - guest_cid: 5
      socket: /tmp/vhost5.socket
      forward-cid: 1
      forward-listen: 9001+9002
      tx_buffer_size: 32768
      queue_size: 1024
`
    const [three, four, five] = file(README)
    expect(three).toEqual({
      ...DEFAULTS,
      socket: '/tmp/vhost3.socket',
      backend: { kind: 'unix', path: '/tmp/vm3.sock' },
      bufferBytes: 65_536,
      groups: ['group1', 'groupA'],
    })
    expect(four).toMatchObject({ guestCid: 4, bufferBytes: 32_768, groups: ['group2', 'groupB'] })
    expect(five).toMatchObject({ guestCid: 5, backend: { kind: 'vsock', cid: 1, listen: [9001, 9002] }, hostCids: 'any' })
  })

  test('lists, anchors, and keys with hyphens', () => {
    const text = `
vms:
  - { socket: /a, uds-path: /b, groups: &groups [one, two], from-guest-allow: ["host:1024-2048", any:7], half_close: false }
  - socket: /c
    guest-cid: 4
    forward_cid: 1
    forward_listen: [9001, 9002]
    groups: *groups
    linger: 2m
`
    const [three, four] = file(text)
    expect(three!.groups).toEqual(['one', 'two'])
    expect(three!.policy.fromGuest!.allow).toEqual([
      { peer: 'host', ports: [[1024, 2048]] },
      { peer: 'any', ports: [[7, 7]] },
    ])
    expect(three!.halfClose).toBe(false)
    expect(four).toMatchObject({ guestCid: 4, backend: { listen: [9001, 9002] }, groups: ['one', 'two'], lingerMs: 120_000 })
  })

  test.each([
    ['', 'vms.yaml:1:1: must be a map of keys and values. Write "vms:"'],
    ['a: [', 'vms.yaml:1:5: the file is not YAML: '],
    ['vms: [1, 2', 'vms.yaml:1:11: the file is not YAML: '],
    ['\tvms: []', 'vms.yaml:1:1: the file is not YAML: '],
    ['- socket: /a', 'vms.yaml:1:1: must be a map of keys and values.'],
    ['{}', 'vms.yaml:1:1: vms is missing. Write "vms:"'],
    ['vms:', 'vms.yaml:1:5: vms must be a list of devices.'],
    ['vms: []', 'vms.yaml:1:6: vms must be a list of devices.'],
    ['vms:\n  socket: /a', 'vms.yaml:2:3: vms must be a list of devices.'],
    ['vms: [{socket: /a, uds_path: /b}]\nvm: []', 'vms.yaml:2:1: vm is not a key of the file.'],
    ['vms:\n  - 5', 'vms.yaml:2:5: vms[0] must be a map of keys and values.'],
    ['vms:\n  - socket: /a', 'vms.yaml:2:5: vms[0] uds_path or forward_cid is missing.'],
    ['vms:\n  - socket: /a\n    uds: /b', 'vms.yaml:3:5: vms[0].uds is not a key of a device. The keys are guest-cid, '],
    ['vms:\n  - socket: /a\n    uds_path: /b\n    uds-path: /c', 'vms.yaml:4:5: vms[0].uds-path is there twice'],
    ['vms:\n  - socket: /a\n    socket: /b', 'vms.yaml:3:5: the file is not YAML: '],
    ['vms:\n  - socket: /a\n    uds_path:', 'vms.yaml:3:14: vms[0].uds_path must be a text, a number, true or false, or a list'],
    ['vms:\n  - socket: {}\n    uds_path: /b', 'vms.yaml:2:13: vms[0].socket must be a text, '],
    [
      'vms:\n  - socket: /a\n    uds_path: /b\n    guest_cid: two',
      'vms.yaml:4:16: vms[0].guest_cid must be a whole number from 3 to 4294967294, got "two"',
    ],
    [
      'vms:\n  - {socket: /a, uds_path: /b}\n  - {socket: /c, uds_path: /d, groups: [a, b+c], guest_cid: 4}',
      'vms.yaml:3:44: vms[1].groups[1] must be one without +',
    ],
    [
      'vms:\n  - {socket: /a, uds_path: /b}\n  - {socket: /c, uds_path: /b, guest_cid: 4}',
      'vms.yaml:3:28: vms[1].uds_path is taken: the path /b is in use above',
    ],
    ['vms:\n  - {socket: /a, uds_path: *nowhere}', 'vms.yaml:2:28: vms[0].uds_path refers to &nowhere, which is not there'],
    ['vms: [1]\n---\nvms: [2]', 'vms.yaml:2:1: the file has a second YAML document. Put all devices below one "vms:".'],
    ['vms:\n  - {socket: /a, uds_path: /b, host_cids: 3}', "vms.yaml:2:43: vms[0].host_cids has the guest's own CID 3"],
    ['vms:\n  - {? [a] : b}', 'vms.yaml:2:8: vms[0] has a key that is not a text'],
  ])('%j', (text, message) => {
    expect(() => file(text)).toThrow(message)
  })
})

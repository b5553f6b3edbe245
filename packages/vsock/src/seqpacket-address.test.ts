import { describe, expect, it } from 'vitest'
import { formatAddress, parseAddress, parseSeqpacketAddress, toAddress, toSeqpacketAddress } from './address.js'

const type = 'seqpacket'

describe('the address of a message socket', () => {
  it.each([
    ['vsock+seq://3:1024', { transport: 'vsock', cid: 3, port: 1024, type }],
    ['vsock+seq://any:any', { transport: 'vsock', cid: 0xffffffff, port: 0xffffffff, type }],
    ['unix+seq:/run/x.sock', { transport: 'unix', path: '/run/x.sock', type }],
    ['unix+seq:////run/x.sock', { transport: 'unix', path: '//run/x.sock', type }],
    ['hvsock+seq:///run/vm.sock:52', { transport: 'hvsock', path: '/run/vm.sock', port: 52, type }],
  ] as const)('%s is read, written and checked', (text, address) => {
    const read = parseSeqpacketAddress(text)
    expect(read).toEqual(address)
    expect(Object.isFrozen(read)).toBe(true)
    expect(parseSeqpacketAddress(formatAddress(read))).toEqual(address)
    expect(toSeqpacketAddress(read)).toEqual(address)
  })

  it('takes the default port', () => {
    expect(parseSeqpacketAddress('vsock+seq://3', { defaultPort: 7 })).toEqual({ transport: 'vsock', cid: 3, port: 7, type })
  })

  it.each([
    ['vsock+seq://3', 'address "vsock+seq://3": there is no port. Add :<port> (0 to 4294967295).'],
    [
      'unix+seq:',
      'address "unix+seq:": there is no path. Write hvsock+seq://<path>:<port>, unix+seq:<path> or vsock+seq://<cid>:<port>.',
    ],
    [
      'unix:/x',
      'address "unix:/x": it is not the address of a message socket (SOCK_SEQPACKET). Write hvsock+seq://<path>:<port>, unix+seq:<path> or vsock+seq://<cid>:<port>. For a stream there are connect() and listen().',
    ],
  ])('%s is refused', (text, message) => {
    expect(() => parseSeqpacketAddress(text)).toThrow(message)
  })

  it('is refused by what is for streams, as text and as a value, and the other way round', () => {
    const message =
      /it is the address of a message socket \(SOCK_SEQPACKET\)\. connectSeqpacket\(\) and listenSeqpacket\(\) take it\./
    expect(() => parseAddress('vsock+seq://3:1')).toThrow(message)
    expect(() => toAddress(parseSeqpacketAddress('unix+seq:/x'))).toThrow(message)
    expect(() => toSeqpacketAddress({ transport: 'unix', path: '/x' } as never)).toThrow(
      "or give an object with type: 'seqpacket'.",
    )
    expect(() => toSeqpacketAddress(undefined as never)).toThrow('not the address of a message socket')
  })
})

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type Address,
  AddressError,
  Cid,
  formatAddress,
  guestInitiatedPath,
  isAddressError,
  PORT_ANY,
  parseAddress,
  toAddress,
  UNIX_PATH_MAX,
} from './address.js'

describe('parseAddress', () => {
  const table: [text: string, address: Address][] = [
    ['hvsock:///run/vm.sock:219', { transport: 'hvsock', path: '/run/vm.sock', port: 219 }],
    ['hvsock://vm.sock:0', { transport: 'hvsock', path: 'vm.sock', port: 0 }],
    ['hvsock:///run/a:b.sock:4294967295', { transport: 'hvsock', path: '/run/a:b.sock', port: 4294967295 }],
    ['hvsock:///run/with space%20.sock:1', { transport: 'hvsock', path: '/run/with space%20.sock', port: 1 }],
    ['unix:/run/vm.sock', { transport: 'unix', path: '/run/vm.sock' }],
    ['unix:vm.sock:52', { transport: 'unix', path: 'vm.sock:52' }],
    ['unix:///run/vm.sock', { transport: 'unix', path: '/run/vm.sock' }],
    ['unix:////run/vm.sock', { transport: 'unix', path: '//run/vm.sock' }],
    ['vsock://3:1024', { transport: 'vsock', cid: 3, port: 1024 }],
    ['vsock://any:any', { transport: 'vsock', cid: Cid.any, port: PORT_ANY }],
    ['vsock://local:1', { transport: 'vsock', cid: Cid.local, port: 1 }],
    ['vsock://host:219', { transport: 'vsock', cid: Cid.host, port: 219 }],
    ['vsock://hypervisor:219', { transport: 'vsock', cid: Cid.hypervisor, port: 219 }],
    ['vsock://4294967295:4294967295', { transport: 'vsock', cid: Cid.any, port: PORT_ANY }],
  ]
  it.each(table)('reads %s', (text, address) => {
    expect(parseAddress(text)).toEqual(address)
    expect(parseAddress(formatAddress(address))).toEqual(address)
  })

  const refused: [text: string, message: RegExp][] = [
    ['', /the form is unknown\. Write hvsock:\/\/<path>:<port>, unix:<path> or vsock:\/\/<cid>:<port>\.$/],
    ['/run/vm.sock', /Did you mean "unix:\/run\/vm.sock"\?$/],
    ['tcp://localhost:80', /the form is unknown/],
    ['HVSOCK:///run/vm.sock:1', /the form is unknown/],
    [' unix:/run/vm.sock', /the form is unknown/],
    ['hvsock:/run/vm.sock:1', /the form is unknown/],
    ['hvsock:///run/vm.sock', /there is no port\. Add :<port>/],
    ['hvsock:///run:9/vm.sock', /no port/],
    ['hvsock://:219', /no path/],
    ['hvsock:///run/vm.sock:', /port "" is not allowed/],
    ['hvsock:///run/vm.sock:0219', /port "0219".*without leading zeros\.$/],
    ['hvsock:///run/vm.sock:+1', /port "\+1"/],
    ['hvsock:///run/vm.sock:-1', /port "-1"/],
    ['hvsock:///run/vm.sock:0x10', /port "0x10"/],
    ['hvsock:///run/vm.sock:1e3', /port "1e3"/],
    ['hvsock:///run/vm.sock: 1', /port " 1"/],
    ['hvsock:///run/vm.sock:1\n', /port "1\\n"/],
    ['hvsock:///run/vm.sock:4294967296', /port "4294967296".*0 to 4294967295/],
    ['hvsock:///run/vm.sock:any', /port "any"/],
    ['hvsock:///run/\0vm.sock:1', /NUL at offset 5/],
    ['unix:', /no path/],
    ['unix:\0abstract', /NUL at offset 0/],
    ['unix://host/run/vm.sock', /has no host\. Write unix:<path>/],
    ['vsock://3', /no port/],
    ['vsock://:1', /cid "" is not allowed/],
    ['vsock://guest:1', /the cid "guest".*any, hypervisor, local, host\.$/],
    ['vsock://toString:1', /cid "toString"/],
    ['vsock://03:1', /cid "03"/],
    ['vsock://3:anything', /the port "anything".*, or any\.$/],
  ]
  it.each(refused)('refuses %j', (text, message) => {
    expect(() => parseAddress(text)).toThrow(message)
    expect(() => parseAddress(text)).toThrow(AddressError)
  })

  it('names the address and carries a code', () => {
    const error = (() => {
      try {
        parseAddress('vsock://guest:1')
      } catch (e) {
        return e as AddressError
      }
      throw new Error('accepted')
    })()
    expect(error).toBeInstanceOf(TypeError)
    expect(error).toMatchObject({
      code: 'ERR_INVALID_ADDRESS',
      subject: 'address "vsock://guest:1"',
      what: 'the cid "guest" is not allowed',
      retryable: false,
    })
    expect(error.message).toBe(`${error.subject}: ${error.what}. ${error.next}`)
    expect([error, new TypeError('x'), null].map(isAddressError)).toEqual([true, false, false])
  })

  it('fills in a default port only where one is missing', () => {
    expect(parseAddress('hvsock:///run/vm.sock', { defaultPort: 219 })).toMatchObject({ path: '/run/vm.sock', port: 219 })
    expect(parseAddress('hvsock:///run:9/vm.sock', { defaultPort: 219 })).toMatchObject({ path: '/run:9/vm.sock', port: 219 })
    expect(parseAddress('vsock://3', { defaultPort: 219 })).toMatchObject({ cid: 3, port: 219 })
    expect(parseAddress('vsock://3:1', { defaultPort: 219 })).toMatchObject({ port: 1 })
    expect(parseAddress('unix:/run/vm.sock', { defaultPort: 219 })).toEqual({ transport: 'unix', path: '/run/vm.sock' })
    expect(() => parseAddress('vsock://3:', { defaultPort: 219 })).toThrow(/port ""/)
    expect(() => parseAddress('vsock://3', { defaultPort: -1 })).toThrow(/default port -1/)
  })

  it('refuses what is not text', () => {
    expect(() => parseAddress(219 as unknown as string)).toThrow('address: must be a string, got 219. Write hvsock://')
  })
})

it('takes paths of any length: whether a socket can have it is known where it is opened', () => {
  const path = `/${'ü'.repeat(UNIX_PATH_MAX)}`
  expect(parseAddress(`unix:${path}`)).toEqual({ transport: 'unix', path })
  expect(parseAddress(`hvsock://${path}:1`)).toEqual({ transport: 'hvsock', path, port: 1 })
  expect(guestInitiatedPath({ transport: 'hvsock', path, port: 219 })).toBe(`${path}_219`)
})

describe('toAddress', () => {
  it('freezes a copy with the known fields', () => {
    const given = { transport: 'unix', path: '/x', port: 3 } as const
    const address = toAddress(given)
    expect(address).toEqual({ transport: 'unix', path: '/x' })
    expect(Object.isFrozen(address)).toBe(true)
  })

  it.each([
    [{ transport: 'tcp' }, /the transport is unknown/],
    [null, /the transport is unknown/],
    [{ transport: 'unix', path: '' }, /no path/],
    [{ transport: 'unix' }, /no path/],
    [{ transport: 'hvsock', path: '/x', port: 1.5 }, /port 1.5/],
    [{ transport: 'vsock', cid: -1, port: 1 }, /cid -1/],
    [{ transport: 'vsock', cid: 3, port: 2 ** 32 }, /port 4294967296/],
  ])('refuses %j', (value, message) => {
    expect(() => toAddress(value as Address)).toThrow(message)
    expect(() => toAddress(value as Address)).toThrow(AddressError)
  })
})

it('refuses a value that JSON cannot show', () => {
  const value = { transport: 'vsock', cid: 3n, port: 1 } as unknown as Address
  expect(() => toAddress(value)).toThrow('address an object: the cid 3n is not allowed')
})

it('reads back what it writes', () => {
  const u32 = fc.integer({ min: 0, max: 0xffffffff })
  const path = fc.string({ minLength: 1, maxLength: 107, unit: 'binary-ascii' }).filter((p) => !p.includes('\0'))
  const address: fc.Arbitrary<Address> = fc.oneof(
    fc.record({ transport: fc.constant('hvsock' as const), path, port: u32 }),
    fc.record({ transport: fc.constant('unix' as const), path }),
    fc.record({ transport: fc.constant('vsock' as const), cid: fc.oneof(u32, fc.constantFrom(0, 1, 2, 0xffffffff)), port: u32 }),
  )
  fc.assert(
    fc.property(address, (a) => {
      expect(parseAddress(formatAddress(a))).toEqual(a)
    }),
  )
  fc.assert(
    fc.property(fc.string(), fc.constantFrom('', 'hvsock://', 'unix:', 'vsock://'), (rest, scheme) => {
      try {
        parseAddress(scheme + rest)
      } catch (error) {
        expect(error).toBeInstanceOf(AddressError)
      }
    }),
  )
})

import { describe, expect, it } from 'vitest'
import { explain } from './errno.js'

describe('errno of AF_VSOCK', () => {
  it('turns the reset of an unattended port into ECONNREFUSED, and says what the kernel said', () => {
    expect(explain('connect', 'ECONNRESET')).toEqual({
      code: 'ECONNREFUSED',
      retryable: true,
      what: 'there is no listener on that port, or its backlog is full (the kernel said ECONNRESET)',
      next: 'Start the server at the other end, or pass retry.',
    })
  })

  // Whether the client's retrying makes sense of it: a guest that boots, a server that starts, a descriptor that is closed.
  it.each([
    ['connect', 'ECONNRESET', 'ECONNREFUSED', true],
    ['connect', 'ECONNREFUSED', 'ECONNREFUSED', true],
    ['connect', 'ETIMEDOUT', 'ETIMEDOUT', true],
    ['connect', 'ENODEV', 'ENODEV', true],
    ['connect', 'ENOTCONN', 'ECONNREFUSED', true],
    ['connect', 'EMFILE', 'EMFILE', true],
    ['connect', 'ENETUNREACH', 'ENETUNREACH', false],
    ['connect', 'ESOCKTNOSUPPORT', 'ESOCKTNOSUPPORT', false],
    ['connect', 'EAFNOSUPPORT', 'ENOTSUP', false],
    ['connect', 'EPERM', 'EPERM', false],
    ['listen', 'EACCES', 'EACCES', false],
    ['listen', 'EADDRINUSE', 'EADDRINUSE', true],
    ['listen', 'EADDRNOTAVAIL', 'EADDRNOTAVAIL', false],
    ['listen', 'EAFNOSUPPORT', 'ENOTSUP', false],
  ] as const)('%s: %s is %s, retryable %s', (op, errno, code, retryable) => {
    expect(explain(op, errno)).toMatchObject({ code, retryable })
    expect(explain(op, errno).what).toContain(errno)
  })

  it('gives the hint where the errno misleads', () => {
    expect(explain('connect', 'ETIMEDOUT').next).toContain('vsock_loopback')
    expect(explain('listen', 'EACCES').what).toContain('below 1024')
  })

  it('keeps an errno it does not know, inherited names included', () => {
    for (const errno of ['EDOM', 'toString', 'constructor']) {
      expect(explain('connect', errno)).toEqual({
        code: errno,
        retryable: false,
        what: `the kernel said ${errno}`,
        next: 'See the cause.',
      })
    }
  })
})

import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Binding } from '../native/binding.js'
import * as loader from '../native/loader.js'
import { listenFds } from './activation.js'

vi.mock('../native/loader.js', { spy: true })
afterEach(() => void vi.restoreAllMocks())

const environment = (more: NodeJS.ProcessEnv) => ({ HOME: '/root', LISTEN_PID: '77', LISTEN_FDS: '2', ...more })
const pid = 77

describe('listenFds', () => {
  it('reads the variables once', () => {
    const env = environment({ LISTEN_FDNAMES: 'guest.socket:control', LISTEN_PIDFDID: '12' })
    expect(listenFds({ env, pid })).toEqual([
      { fd: 3, name: 'guest.socket' },
      { fd: 4, name: 'control' },
    ])
    expect(env).toEqual({ HOME: '/root' })
    expect(listenFds({ env, pid })).toEqual([])
  })

  it('gives names as systemd does', () => {
    expect(listenFds({ env: environment({}), pid })).toEqual([
      { fd: 3, name: 'unknown' },
      { fd: 4, name: 'unknown' },
    ])
    expect(listenFds({ env: environment({ LISTEN_FDNAMES: 'a:' }), pid }).map(({ name }) => name)).toEqual(['a', ''])
  })

  it.each([
    ['nothing', { LISTEN_PID: undefined, LISTEN_FDS: undefined }],
    ['no count', { LISTEN_FDS: undefined }],
    ['no owner', { LISTEN_PID: undefined }],
    ['another process', { LISTEN_PID: '78' }],
    ['none', { LISTEN_FDS: '0' }],
  ])('finds nothing where there is %s, and removes what there is', (_, more) => {
    const env = environment(more)
    expect(listenFds({ env, pid })).toEqual([])
    expect(env).toEqual({ HOME: '/root' })
  })

  it.each([
    [{ LISTEN_PID: 'x' }, 'listen LISTEN_PID: "x" is not the number of a process. Leave these variables to systemd.'],
    [{ LISTEN_FDS: '-1' }, 'listen LISTEN_FDS: "-1" is not a count of descriptors.'],
    [{ LISTEN_FDS: '99999' }, 'listen LISTEN_FDS: "99999" is not a count of descriptors.'],
    [{ LISTEN_FDNAMES: 'a:b:c' }, 'listen LISTEN_FDNAMES: "a:b:c" is 3 names for 2 descriptors.'],
  ])('refuses %j, and removes it', (more, message) => {
    const env = environment(more)
    expect(() => listenFds({ env, pid })).toThrow(message)
    expect(env).toEqual({ HOME: '/root' })
  })

  it('takes its own process and environment by default', () => {
    vi.stubEnv('LISTEN_PID', String(process.pid))
    vi.stubEnv('LISTEN_FDS', '1')
    try {
      expect(listenFds()).toEqual([{ fd: 3, name: 'unknown' }])
      expect(process.env.LISTEN_PID).toBeUndefined()
    } finally {
      vi.unstubAllEnvs()
    }
  })

  it('keeps them from the children of the process where there is the addon', () => {
    const kept: number[] = []
    const closed = Object.assign(new Error('closed'), { code: 'EBADF' })
    const closeOnExec = (fd: number) => {
      kept.push(fd)
      throw closed
    }
    vi.mocked(loader.loadBinding).mockReturnValue({ closeOnExec } as Partial<Binding> as Binding)
    expect(listenFds({ env: environment({}), pid })).toHaveLength(2)
    expect(kept).toEqual([3, 4])
    const bug = new TypeError('bug')
    vi.mocked(loader.loadBinding).mockImplementation(() => {
      throw bug
    })
    expect(() => listenFds({ env: environment({}), pid })).toThrow(bug)
  })
})

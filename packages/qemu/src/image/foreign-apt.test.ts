import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { foreignApt } from './foreign-apt.js'

const DAY = 24 * 3_600_000
let dir: string
let cacheDir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'apt-'))
  cacheDir = join(dir, 'cache')
  await mkdir(cacheDir)
  await mkdir(join(dir, 'bin'))
  vi.stubEnv('PATH', [join(dir, 'bin'), process.env.PATH].join(delimiter))
  vi.stubEnv('CALLS', join(dir, 'calls'))
})
afterEach(async () => {
  vi.unstubAllEnvs()
  await rm(dir, { recursive: true })
})

/** Stands in for apt-get; finds its folder of lists in its arguments, as apt does. */
async function aptDoes(what: string): Promise<void> {
  const script = [
    '#!/bin/sh',
    'echo "$@" >>"$CALLS"',
    'lists=$(printf "%s\\n" "$@" | sed -n s/^Dir::State::lists=//p)',
    `${what}\n`,
  ]
  await writeFile(join(dir, 'bin/apt-get'), script.join('\n'), { mode: 0o755 })
}
const calls = async () => (await readFile(join(dir, 'calls'), 'utf8')).trim().split('\n')
const LISTS = 'echo one >"$lists/mirror.invalid_debian_dists_x_main_binary-arm64_Packages"'

describe('foreignApt', () => {
  it('fetches lists of that architecture once a day, and keeps nothing else', async () => {
    await aptDoes(LISTS)
    const options = await foreignApt('aarch64', cacheDir)
    expect(options).toContain('APT::Architecture=arm64')
    expect(options).toContain(`Dir::State::lists=${join(cacheDir, 'apt-arm64/lists')}`)
    expect(await foreignApt('aarch64', cacheDir)).toEqual(options)
    expect(await calls()).toEqual([expect.stringMatching(/APT::Architectures=arm64 .* update -q$/)])
    await foreignApt('aarch64', cacheDir, undefined, Date.now() + 2 * DAY)
    expect(await calls()).toHaveLength(2)
    expect(await readdir(cacheDir)).toEqual(['apt-arm64'])
  })

  it('makes do with the lists of an earlier day', async () => {
    await aptDoes(LISTS)
    const options = await foreignApt('aarch64', cacheDir)
    for (const failure of ['exit 100', 'exit 0']) {
      await aptDoes(failure)
      expect(await foreignApt('aarch64', cacheDir, undefined, Date.now() + 2 * DAY)).toEqual(options)
      expect(await readdir(join(cacheDir, 'apt-arm64/lists'))).toHaveLength(2)
    }
  })

  it.each([
    ['fails', 'echo "E: no network" >&2; exit 100', /apt-get .*no network/],
    ['brings nothing', 'exit 0', /no list of arm64 packages/],
  ])('rejects when apt %s and there are none', async (_, what, message) => {
    await aptDoes(what)
    await expect(foreignApt('aarch64', cacheDir)).rejects.toMatchObject({
      code: 'IMAGE',
      message: expect.stringMatching(message),
    })
    expect(await readdir(cacheDir)).toEqual([])
  })
})

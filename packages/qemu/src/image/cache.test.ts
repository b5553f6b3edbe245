import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { discard, place } from './cache.js'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cache-'))
  for (const name of ['made', 'there']) {
    await mkdir(join(dir, name))
    await writeFile(join(dir, name, 'file'), name)
  }
})
afterEach(() => rm(dir, { recursive: true }))

const at = (name: string) => join(dir, name)

it.each([
  ['stays if it is whole', true, 'there'],
  ['is replaced if it is not', false, 'made'],
])('what is there %s', async (_what, whole, content) => {
  await place(at('made'), at('there'), async () => whole)
  expect(await readFile(at('there/file'), 'utf8')).toBe(content)
})

it('tells why it cannot be put there', async () => {
  await expect(place(at('made'), at('no/such/folder'), async () => false)).rejects.toMatchObject({ code: 'ENOENT' })
  expect(existsSync(at('made/file'))).toBe(true)
})

it('is gone as a whole', async () => {
  // What is left of an earlier attempt.
  await mkdir(at('doomed/rest'), { recursive: true })
  for (let turn = 0; turn < 2; turn++) await discard(at('there'), at('doomed'))
  expect([existsSync(at('there')), existsSync(at('doomed'))]).toEqual([false, false])
})

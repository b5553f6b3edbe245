// docs/errors.md has one entry for each code that an error of this project can have, and no other entry.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { codesIn } from './support/error-codes.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const page = readFileSync(join(root, 'docs/errors.md'), 'utf8')
const codes = codesIn(root)
const entries = [...page.matchAll(/^## ([A-Z][A-Z0-9_]+)$/gm)].map(([, code]) => code!)

test('each code has one entry, and each entry a code', () => {
  const found = [...codes.keys()].sort()
  // A search that finds nothing would agree with an empty page.
  expect(found.length).toBeGreaterThan(70)
  expect(found).toContain('GUEST_ERROR')
  expect(entries).toEqual(found)
})

test('each entry says where, what, whether the request ran, and what to do', () => {
  for (const entry of page.split(/^## (?=[A-Z_0-9]+$)/m).slice(1)) {
    const [code, , head, , ...rows] = entry.trimEnd().split('\n')
    expect(head, code).toBe('| where | what it means | did the request run? | what to do |')
    expect(rows.length, code).toBeGreaterThan(0)
    for (const row of rows)
      expect(
        row
          .split(' | ')
          .map((cell) => cell.replaceAll('|', '').trim())
          .filter(Boolean),
        code,
      ).toHaveLength(4)
  }
})

test('each entry names the packages whose sources have the code', () => {
  const sections = new Map(
    page
      .split(/^## (?=[A-Z_0-9]+$)/m)
      .slice(1)
      .map((section) => [section.split('\n', 1)[0]!, section]),
  )
  for (const [code, packages] of codes)
    for (const name of packages) {
      // The foundation is bundled into the others, the testkit imitates them, and the apps show their errors.
      if (name === 'packages/foundation' || name === 'packages/testkit' || name.startsWith('apps/')) continue
      expect(sections.get(code), `${code} of ${name}`).toContain(name.split('/')[1])
    }
})

import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { differencesTable } from './differences.mjs'

it('the README of @upcall/vsock has the table of differences', () => {
  const readme = readFileSync(new URL('../../packages/vsock/README.md', import.meta.url), 'utf8')
  expect(readme).toContain(`${differencesTable()}\n`)
})

import { execFileSync } from 'node:child_process'
import { copyFileSync, writeFileSync } from 'node:fs'
import { defineConfig } from 'tsup'
import { program } from '../../tsup.base.js'

export default defineConfig({
  ...program(['src/main.ts']),
  // The manual page is made by the program that it is about.
  async onSuccess() {
    copyFileSync('../../docs/errors.md', 'dist/errors.md')
    writeFileSync('dist/upcall.1', execFileSync(process.execPath, ['dist/main.js', '__man']))
  },
})

import { cpSync } from 'node:fs'
import { defineConfig } from 'tsup'
import { program } from '../../tsup.base.js'

/** What goes into the guest: one file with everything of ours in it, and the sources of the kernel module. */
export default defineConfig({
  ...program({ agent: 'src/agent/main.ts' }),
  // What the other configuration has built stays.
  clean: false,
  sourcemap: false,
  noExternal: [/^@upcall\//],
  async onSuccess() {
    for (const name of ['Makefile', 'upcall_mmio.c', 'LICENSE'])
      cpSync(new URL(`../../kernel/upcall-mmio/${name}`, import.meta.url), `dist/upcall-mmio/${name}`)
  },
})

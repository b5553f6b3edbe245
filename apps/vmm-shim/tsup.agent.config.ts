import { cpSync } from 'node:fs'
import { defineConfig } from 'tsup'

/** What goes into the guest: one file with everything of ours in it, and the sources of the kernel module. */
export default defineConfig({
  entry: { agent: 'src/agent/main.ts' },
  format: ['esm'],
  target: 'node20',
  noExternal: [/^@upcall\//],
  tsconfig: 'tsconfig.build.json',
  async onSuccess() {
    for (const name of ['Makefile', 'upcall_mmio.c', 'LICENSE'])
      cpSync(new URL(`../../kernel/upcall-mmio/${name}`, import.meta.url), `dist/upcall-mmio/${name}`)
  },
})

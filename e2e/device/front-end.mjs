import { fileURLToPath } from 'node:url'
import { build } from 'tsup'

const testing = fileURLToPath(new URL('../../packages/vhost-user/testing/', import.meta.url))

/** A VMM without a VM for programs in a guest, in which there is no QEMU: the test support of @upcall/vhost-user, built into `folder`. */
export async function buildFrontEnd(folder) {
  await build({
    ...{ config: false, entry: [`${testing}fake-front-end.ts`, `${testing}addon.ts`], outDir: folder, format: ['esm'] },
    ...{ target: 'node20', tsconfig: `${testing}../tsconfig.json`, noExternal: [/^@upcall\//], silent: true },
    esbuildOptions: (options) => {
      options.conditions = ['@upcall/source']
    },
  })
}

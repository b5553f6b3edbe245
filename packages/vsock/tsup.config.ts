import { defineConfig } from 'tsup'
import { library } from '../../tsup.base.js'

export default defineConfig({
  ...library({ index: 'src/index.ts', address: 'src/entry/address.ts' }),
  esbuildOptions(options) {
    // The loader asks import.meta only where there is no __filename, that is never in CommonJS.
    options.logOverride = { ...options.logOverride, 'empty-import-meta': 'silent' }
  },
})

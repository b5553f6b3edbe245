import { defineConfig } from 'tsup'
import { library } from '../../tsup.base.js'

// The loader finds the addon from its own file: shims give it import.meta.url in CommonJS too.
export default defineConfig({ ...library(), shims: true })

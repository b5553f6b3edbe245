import { defineConfig } from 'tsup'
import { program } from '../../tsup.base.js'

// The guest runs in a process of its own, so it is a program of its own.
export default defineConfig(program({ main: 'src/main.ts', guest: 'src/guest/main.ts' }))

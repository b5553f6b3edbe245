import { defineConfig } from 'tsup'

export default defineConfig({
  // The guest runs in a process of its own, so it is a program of its own.
  entry: { main: 'src/main.ts', guest: 'src/guest/main.ts' },
  format: ['esm'],
  target: 'node20',
  sourcemap: true,
  clean: true,
  noExternal: [/^@upcall\/foundation/],
  removeNodeProtocol: false,
  tsconfig: 'tsconfig.build.json',
})

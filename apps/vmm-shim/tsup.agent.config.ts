import { defineConfig } from 'tsup'

/** The guest gets this one file and nothing else, so everything of ours is in it. */
export default defineConfig({
  entry: { agent: 'src/agent/main.ts' },
  format: ['esm'],
  target: 'node20',
  noExternal: [/^@upcall\//],
  tsconfig: 'tsconfig.build.json',
})

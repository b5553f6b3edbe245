import { fileURLToPath } from 'node:url'

/** The built command line, a program for Node. */
export const UPCALL = fileURLToPath(new URL('../apps/cli/dist/main.js', import.meta.url))

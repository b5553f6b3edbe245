// What biome cannot see, because it needs types: promises that are not awaited, and messages of errors that a program reads.
// Everything else is biome's.
import tseslint from 'typescript-eslint'
import { noMessageRead } from './scripts/no-message-read.mjs'

/** node:test awaits its tests by itself. */
const awaited = [{ from: 'package', package: 'node:test', name: ['after', 'before', 'describe', 'it', 'suite', 'test'] }]

export default [
  { ignores: ['**/dist/', '**/build/', 'docs/api/', '**/*.d.ts'] },
  {
    files: ['**/*.ts', '**/*.mjs'],
    // The other rules that comments speak of are biome's.
    linterOptions: { reportUnusedDisableDirectives: 'off' },
    languageOptions: {
      parser: tseslint.parser,
      parserOptions: { project: ['tsconfig.lint.json'], tsconfigRootDir: import.meta.dirname },
    },
    plugins: { ts: tseslint.plugin },
    rules: {
      'ts/no-floating-promises': ['error', { allowForKnownSafeCalls: awaited }],
      'ts/no-misused-promises': 'error',
    },
  },
  {
    // The page runs in a browser.
    files: ['apps/vmm-shim/ui/**/*.{ts,tsx}'],
    languageOptions: {
      parser: tseslint.parser,
      parserOptions: { project: ['apps/vmm-shim/ui/tsconfig.json'], tsconfigRootDir: import.meta.dirname },
    },
    plugins: { ts: tseslint.plugin },
    rules: { 'ts/no-floating-promises': 'error', 'ts/no-misused-promises': 'error' },
  },
  {
    files: ['{packages,apps}/*/src/**/*.ts'],
    ignores: ['**/*.test.ts'],
    plugins: { upcall: { rules: { 'no-message-read': noMessageRead } } },
    rules: { 'upcall/no-message-read': 'error' },
  },
]

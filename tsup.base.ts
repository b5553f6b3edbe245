import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Options } from 'tsup'

const foundation = fileURLToPath(new URL('packages/foundation/', import.meta.url))

type Plugin = NonNullable<Options['esbuildPlugins']>[number]

/**
 * The foundation is not published: each library contains what it uses. Under a name of its own, since a path to its files
 * would lead out of the published package.
 */
const bundledFoundation: Plugin = {
  name: 'foundation',
  setup(build) {
    const inside = (path: string) => ({ path: path.replace(/[.]js$/, ''), namespace: 'foundation', sideEffects: false })
    build.onResolve({ filter: /^@upcall\/foundation\/testing\// }, ({ path }) => inside(path.replace('@upcall/foundation/', '')))
    build.onResolve({ filter: /^@upcall\/foundation\// }, ({ path }) => inside(path.replace('@upcall/foundation/', 'src/')))
    build.onResolve({ filter: /^[.]/, namespace: 'foundation' }, ({ path, importer }) => inside(join(importer, '..', path)))
    build.onLoad({ filter: /./, namespace: 'foundation' }, ({ path }) => ({
      contents: readFileSync(join(foundation, `${path}.ts`), 'utf8'),
      loader: 'ts',
    }))
  },
}

type BuildPlugin = NonNullable<Options['plugins']>[number]

/** esbuild calls a class that names itself `_Vm`, which would show when an instance is logged. */
const classNames: BuildPlugin = {
  name: 'class-names',
  renderChunk(code, { map }) {
    const renamed = [...code.matchAll(/\b(\w+) = class _\1\b/g)].map(([, name]) => name!)
    return { code: renamed.reduce((text, name) => text.replace(new RegExp(`\\b_${name}\\b`, 'g'), name), code), map }
  },
}

/** The same for libraries and programs. `dist` says `node:fs` as the sources do: bundlers for browsers tell Node's modules by it. */
const shared: Options = {
  target: 'node20',
  sourcemap: true,
  clean: true,
  removeNodeProtocol: false,
  esbuildPlugins: [bundledFoundation],
  plugins: [classNames],
  tsconfig: 'tsconfig.build.json',
}

/**
 * How every published library is built: ESM and CJS, each with its own declarations, and source maps that lead back to the
 * shipped src/. Dependencies stay external, so each package can be upgraded on its own.
 */
export function library(entry: string[] | Record<string, string> = ['src/index.ts']): Options {
  return {
    ...shared,
    entry,
    format: ['esm', 'cjs'],
    treeshake: true,
    esbuildOptions(options, { format }) {
      // It would become an expression for browsers, on top of the `__filename` that is asked first.
      if (format === 'cjs') options.define = { ...options.define, 'import.meta.url': 'undefined' }
    },
    dts: {
      compilerOptions: {
        stripInternal: true,
        // The foundation's declarations are bundled, too: those that a path leads to are not taken for another package's.
        paths: {
          '@upcall/foundation/testing/*': [`${foundation}testing/*.ts`],
          '@upcall/foundation/*': [`${foundation}src/*.ts`],
        },
      },
    },
  }
}

/** How every program is built: its own code and the foundation in one file for each entry. */
export function program(entry: Options['entry']): Options {
  return { ...shared, entry: entry!, format: ['esm'] }
}

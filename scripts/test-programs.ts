import { fileURLToPath } from 'node:url'
import { build } from 'tsup'

/**
 * Builds an app's programs for its tests, from the sources of all packages, so that no build stands between an edit and its test.
 *
 * @param app - The app's folder, as a URL that ends with a slash.
 * @param entry - Sources by the name of their program, relative to the app's folder.
 * @param folder - Where to, relative to the app's folder; below `node_modules`, where Node finds the dependencies and git looks for nothing.
 */
export async function buildPrograms(app: URL, entry: Readonly<Record<string, string>>, folder: string): Promise<void> {
  const path = (relative: string) => fileURLToPath(new URL(relative, app))
  await build({
    config: false,
    entry: Object.fromEntries(Object.entries(entry).map(([name, source]) => [name, path(source)])),
    outDir: path(folder),
    format: ['esm'],
    target: 'node20',
    tsconfig: path('tsconfig.json'),
    // tsup would otherwise look into the package.json of whatever folder the tests were started in.
    skipNodeModulesBundle: true,
    noExternal: [/^@upcall\//],
    esbuildOptions: (options) => {
      options.conditions = ['@upcall/source']
    },
    silent: true,
  })
}

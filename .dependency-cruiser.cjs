const { readdirSync } = require('node:fs')

// Who may import whom. The layers are described in docs/architecture.md; `npm run lint` fails when a file breaks them.
// Imports between packages are resolved to their sources, so a forbidden one is found whether or not anything was built.

/** What each package may use: other packages of ours, and whether Node's own modules. Third-party modules only where `npm` says so. */
const layers = {
  // Bundled into every package, so it may be imported everywhere, and imports nothing of ours.
  'packages/foundation': { ours: [], node: true },
  'packages/wire': { ours: [], node: false },
  'packages/vsock': { ours: [], node: true },
  'packages/vhost-user': { ours: [], node: true },
  'packages/qemu': { ours: [], node: true },
  'packages/client': { ours: ['packages/wire'], node: true },
  'packages/server': { ours: [], node: true },
  'packages/device-manager': {
    ours: ['packages/wire', 'packages/client'],
    node: true,
    except: 'packages/device-manager/src/guest',
  },
  'packages/device-manager/src/guest': {
    ours: ['packages/wire', 'packages/server', 'packages/device-manager/src/arch.ts'],
    node: true,
  },
  // For both sides, so it imports neither of them.
  'packages/device-manager/src/arch.ts': { ours: ['packages/wire'], node: true },
  'packages/vmm': {
    ours: ['packages/wire', 'packages/client', 'packages/device-manager'],
    node: true,
    except: 'packages/vmm/src/(qemu|simulated)',
  },
  // The machines: what stands behind the port.
  'packages/vmm/src/qemu': {
    ours: ['packages/wire', 'packages/device-manager', 'packages/qemu', 'packages/vmm/src/'],
    node: true,
  },
  'packages/vmm/src/simulated': {
    ours: ['packages/wire', 'packages/device-manager', 'packages/server', 'packages/vsock', 'packages/vmm/src/'],
    node: true,
  },
  'packages/trace': { ours: ['packages/wire', 'packages/client', 'packages/device-manager', 'packages/vsock'], node: true },
  // Each entry has one library of others, an optional peer.
  'packages/metrics': {
    ours: ['packages/client', 'packages/device-manager', 'packages/vsock', 'packages/vhost-user'],
    node: true,
    npm: true,
  },
  'packages/testkit': { ours: ['packages/'], node: true },
  'apps/cli': { ours: ['packages/'], node: true, npm: true },
  'apps/vmm-shim': { ours: ['packages/'], node: true, npm: true },
  // Others' programs are built in one way for their tests and their benches.
  tests: { ours: ['packages/', 'e2e/peers', 'e2e/compile.mjs'], node: true, npm: true },
}

for (const { name } of readdirSync(`${__dirname}/packages`, { withFileTypes: true }).filter((entry) => entry.isDirectory())) {
  if (!(`packages/${name}` in layers))
    throw new Error(`packages/${name} has no layer: say in .dependency-cruiser.cjs what it may import`)
}

/** Code without a platform: it sees no socket, promise, timer or clock. Its tsconfig has no platform types; here it gets no platform modules. */
const pure = [
  'packages/wire/src/',
  'packages/client/src/machine/',
  'packages/server/src/machine/',
  'packages/vhost-user/src/machine/',
  'packages/foundation/src/(error|show|machine|backoff|lines|check|abort|clock|driver|wait)[.]ts$',
]

const unitTest = '[.]test[.]ts$'

/** What stands in that folder, or that one file. */
const within = (path) => `^${path}${/[/]$|[.](ts|mjs)$/.test(path) ? '' : '/'}`

const layerRules = Object.entries(layers).flatMap(([folder, { ours, node, npm, except }]) => {
  const from = {
    path: `${within(folder)}${folder === 'tests' || folder.includes('/src/') ? '' : 'src/'}`,
    pathNot: [unitTest, ...(except ? [`^${except}/`] : [])],
  }
  return [
    {
      name: `${folder} imports only ${['itself', ...ours].join(', ')}`,
      severity: 'error',
      from,
      to: {
        path: '^(packages|apps|tests|e2e)/',
        pathNot: [folder, 'packages/foundation', ...ours].map(within),
      },
    },
    ...(node ? [] : [{ name: `${folder} uses no module of Node`, severity: 'error', from, to: { dependencyTypes: ['core'] } }]),
    ...(npm ? [] : [{ name: `${folder} has no third-party dependency`, severity: 'error', from, to: { path: 'node_modules' } }]),
  ]
})

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    ...layerRules,
    {
      name: 'pure code uses no module of Node',
      severity: 'error',
      from: { path: pure.map((folder) => `^${folder}`), pathNot: unitTest },
      to: { dependencyTypes: ['core'] },
    },
    { name: 'nobody imports an app', severity: 'error', from: { pathNot: '^apps/' }, to: { path: '^apps/' } },
    { name: 'no cycles', severity: 'error', from: {}, to: { circular: true } },
    { name: 'everything resolves', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)dist/' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['@upcall/source', 'import', 'require', 'node', 'default', 'types'],
    },
  },
}

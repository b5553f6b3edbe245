// Prints docs/machines.md from the tables of the state machines, and the client's session for the page of vmm-shim. `--check` only says
// whether they are up to date.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root, sourceFiles } from './source-files.mjs'

const PAGE = 'docs/machines.md'
/** The client's session, for the page that draws it with the current state lit. */
const SESSION = 'apps/vmm-shim/ui/src/session-machine.json'

/** Every table, in the order of the page; `begins` is the state that the machine starts in. */
const machines = [
  {
    title: "The client's session",
    file: 'packages/client/src/machine/table.ts',
    table: 'table',
    begins: 'Due',
    text: `From the first dial to the end: one connection at a time, one request at a time. \`Due\` waits for
the next attempt, \`Failed\` has spent its budget.`,
  },
  {
    title: "The server's connection",
    file: 'packages/server/src/machine/table.ts',
    table: 'table',
    begins: 'Selecting',
    text: `One accepted connection: the service byte, then one chunk of bytes at a time.`,
  },
  {
    title: 'A relay of two streams',
    file: 'packages/vsock/src/relay/machine.ts',
    table: 'relayTable',
    begins: 'Carrying',
    text: `What \`relay()\` and \`upcall vsock\` do with two streams: carry, then part with each of them.`,
  },
  {
    title: 'One direction of a relay',
    file: 'packages/vsock/src/relay/direction.ts',
    table: 'directionTable',
    begins: 'Flowing',
    text: `A relay consists of two of these. \`Refused\`: the sink takes no more, and the source has yet to end.`,
  },
  {
    title: 'A connection of the vhost-user device',
    file: 'packages/vhost-user/src/machine/life.ts',
    table: 'connectionTable',
    begins: ['connecting', 'accepting'],
    text: `One vsock connection between the guest and the host. It begins as \`connecting\` if the host asked
for it, and as \`accepting\` if the guest did.`,
  },
  {
    title: 'A connection between two guests',
    file: 'packages/vhost-user/src/machine/switch/passage.ts',
    table: 'passageTable',
    begins: 'requested',
    text: `One vsock connection between two guests of a network, as the switch sees it. The guests' kernels are
its ends. \`stalled\`: the switch gives it up, since one guest takes nothing and holds the other up.`,
  },
  {
    title: 'A link between two networks of vhost-user devices',
    file: 'packages/vhost-user/src/machine/trunk/link-life.ts',
    table: 'linkTable',
    begins: 'greeting',
    text: `One end of a link: its HELLO is out at once. \`frame\` is every other word of the peer: which guests
it has, packets, and what was taken of them.`,
  },
  {
    title: 'A ring of the vhost-user device',
    file: 'packages/vhost-user/src/machine/ring-state.ts',
    table: 'ringTable',
    begins: 'stopped',
    text: `One virtqueue, as the messages of the VMM start, stop and move it.`,
  },
  {
    title: 'A machine under QEMU',
    file: 'packages/vmm/src/qemu/life.ts',
    table: 'lifeTable',
    begins: 'Off',
    text: `The QEMU process of \`@upcall/vmm/qemu\` and the guest in it, through boots, resets and the end.`,
  },
]

// The same esbuild as for the packages.
const { build } = createRequire(createRequire(import.meta.url).resolve('tsup'))('esbuild')

/** The exports of a module of ours. */
async function load(file) {
  // Beside the sources, so that what they import is found.
  const folder = mkdtempSync(join(root, 'node_modules', '.machines-'))
  try {
    const outfile = join(folder, 'module.mjs')
    const conditions = ['@upcall/source']
    const options = { bundle: true, format: 'esm', platform: 'node', conditions, logLevel: 'error', packages: 'bundle' }
    await build({ ...options, entryPoints: [join(root, file)], outfile })
    return await import(pathToFileURL(outfile).href)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** What leads from a state to which others, as a map from these to the events, and what leaves it as it is. */
function movesOf(table, state) {
  const events = new Map()
  const stays = []
  for (const [event, { to }] of Object.entries(table[state])) {
    const others = to.filter((next) => next !== state)
    for (const next of others) events.set(next, [...(events.get(next) ?? []), event])
    if (others.length < to.length) stays.push(others.length === 0 ? event : `${event} (or moves)`)
  }
  return { events, stays }
}

/** A table as data: its states, and its arrows with the events that may lead that way. */
function asData(table, begins) {
  const states = Object.keys(table)
  const arrows = states.flatMap((from) => [...movesOf(table, from).events].map(([to, on]) => ({ from, to, on })))
  const list = (names) => `[${names.map((name) => `"${name}"`).join(', ')}]`
  const lines = arrows.map(({ from, to, on }) => `    { "from": "${from}", "to": "${to}", "on": ${list(on)} }`).join(',\n')
  return `{\n  "begins": "${begins}",\n  "states": ${list(states)},\n  "arrows": [\n${lines}\n  ]\n}\n`
}

/** A table as a diagram of what leads from one state to another, and a list of what does not. */
function drawn(table, begins) {
  const states = Object.keys(table)
  const lines = [begins].flat().map((state) => `  [*] --> ${state}`)
  const rests = []
  for (const state of states) {
    const { events, stays } = movesOf(table, state)
    for (const [next, on] of events) lines.push(`  ${state} --> ${next}: ${on.join(', ')}`)
    if (events.size === 0) lines.push(`  ${state} --> [*]`)
    if (stays.length > 0) rests.push(`| ${state} | ${stays.join(', ')} |`)
  }
  const diagram = ['```mermaid', 'stateDiagram-v2', ...lines, '```']
  return [...diagram, ...(rests.length === 0 ? [] : ['', '| state | stays on |', '| --- | --- |', ...rests])].join('\n')
}

/** The tables in the sources, as `file: name`. */
function tablesInSources() {
  const sources = sourceFiles().filter((file) => /^(packages|apps)\/.*\/src\/.*[.]ts$/.test(file) && !file.endsWith('.test.ts'))
  return sources.flatMap((file) =>
    [...readFileSync(join(root, file), 'utf8').matchAll(/^export const (\w+): Table</gm)].map(([, name]) => `${file}: ${name}`),
  )
}

const found = tablesInSources()
const listed = machines.map(({ file, table }) => `${file}: ${table}`)
const unlisted = found.filter((name) => !listed.includes(name))
for (const name of unlisted) console.error(`machines: ${name} is not listed in scripts/machines.mjs`)
for (const name of listed.filter((name) => !found.includes(name))) console.error(`machines: there is no ${name}`)

const sections = []
for (const { title, file, table, begins, text } of machines) {
  if (!found.includes(`${file}: ${table}`)) continue
  const rules = (await load(file))[table]
  sections.push(`## ${title}\n\n${text}\nThe table: [${file}](../${file}).\n\n${drawn(rules, begins)}\n`)
}

const page = `# State machines

These diagrams are printed from the tables in the sources by \`node scripts/machines.mjs\`, and
\`npm run lint\` fails when they differ. An arrow is named after the events that may lead that way.
Events that leave the state as it is are listed below each diagram. Any other event is a mistake of
the driver and throws an \`IllegalEventError\`.

${sections.join('\n')}`

const { file, table, begins } = machines[0]
const printed = { [PAGE]: page, [SESSION]: asData((await load(file))[table], begins) }

if (process.argv.includes('--check')) {
  const stale = Object.keys(printed).filter((path) => readFileSync(join(root, path), 'utf8') !== printed[path])
  for (const path of stale) console.error(`machines: ${path} differs from the tables; run node scripts/machines.mjs`)
  process.exitCode = stale.length === 0 && unlisted.length === 0 ? 0 : 1
} else {
  for (const [path, text] of Object.entries(printed)) writeFileSync(join(root, path), text)
}

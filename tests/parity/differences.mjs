// Where a socket of ours does something else than net's, each with its reason. Nothing else may differ, and each of these has to.
// The README of @upcall/vsock has the same table, printed from this one.

/** @typedef {Record<string, string[]>} Logs */

/**
 * @typedef {object} Difference
 * @property {string} net what net does
 * @property {string} ours
 * @property {string} why
 * @property {(traits: readonly string[]) => boolean} where
 * @property {Record<string, (logs: Logs) => Logs>} scenes by group and name, where `*` stands for anything: what the control's logs become
 * @property {readonly string[]} [cannot] scenes that such a transport cannot play to their end, or not each time in the same way
 * @property {number} [lingerMs] what such a scene may be played with
 */

/** Replaces a code in each line. @param {string} from @param {string} to @returns {(logs: Logs) => Logs} */
const recode = (from, to) => edit((lines) => lines.map((line) => line.replaceAll(from, to)))

/** @param {(lines: string[], end: string) => string[]} change @returns {(logs: Logs) => Logs} */
function edit(change) {
  return (logs) => Object.fromEntries(Object.entries(logs).map(([end, lines]) => [end, change(lines, end)]))
}

/** The logs of some ends, word by word. @param {Logs} given @returns {(logs: Logs) => Logs} */
const becomes = (given) => (logs) => ({ ...logs, ...given })

/**
 * That end waits for its peer's end after `end()`, and the peer waits, too: it gives up after `lingerMs`.
 *
 * @param {string} who @returns {(logs: Logs) => Logs}
 */
const givesUp = (who) => edit((lines, end) => (end === who ? lines.flatMap(givingUp) : lines))

/** @param {string} line @returns {string[]} */
function givingUp(line) {
  if (/^(finish|end) [|]/.test(line)) return []
  if (line.startsWith('close false')) return [line.replace('close false', 'error ETIMEDOUT'), line.replace('false', 'true')]
  return [line.replace(/^errored null$/, 'errored ETIMEDOUT').replace(/^(end) null$/, '$1 ETIMEDOUT')]
}

/** The error comes before the late write. */
const endedTwice = edit((lines, end) => {
  if (end !== 'client') return lines
  const [connect = '', ready = ''] = lines
  const close = lines.at(-1) ?? ''
  const error = close.replace('close true', 'error ETIMEDOUT')
  return [connect, ready, 'first end ETIMEDOUT', 'second end ETIMEDOUT', error, 'late write ERR_STREAM_WRITE_AFTER_END', close]
})

const pipelineGivesUp = edit((lines, end) => {
  if (end !== 'client') return lines
  const [connect = '', ready = ''] = lines
  const [error = '', close = ''] = givingUp(lines.at(-1) ?? '')
  return [connect, ready, error, 'pipeline ETIMEDOUT', close]
})

/** @param {readonly string[]} traits */
const dialled = (traits) => !traits.includes('net dials') && !traits.includes('tcp')
/** @param {readonly string[]} traits */
const hybridWithoutHalfClose = (traits) => traits.includes('hybrid') && traits.includes('no half-close')
/** @param {readonly string[]} traits */
const guestWithoutHalfClose = (traits) => traits.includes('guest-initiated') && traits.includes('no half-close')

const GIVES_UP_MS = 200

/** @type {readonly Difference[]} */
export const differences = [
  {
    net: 'A missing socket file is `ENOENT`.',
    ours: "`ECONNREFUSED`, with the kernel's `ENOENT` as `cause`.",
    why: 'A guest that has not booted looks the same on every transport.',
    where: dialled,
    scenes: Object.fromEntries(
      [
        'opening: nothing listens*',
        'opening: the server has gone',
        'http: nothing listens',
        'http2: nothing listens',
        'undici: nothing listens',
        'websockets: nothing listens',
      ].map((name) => [name, recode('ENOENT', 'ECONNREFUSED')]),
    ),
  },
  {
    net: 'The option `signal` gives the code `ABORT_ERR`.',
    ours: "`ABORTED`; `cause` is the signal's reason.",
    why: 'Aborts have one code in all functions of these packages.',
    where: dialled,
    scenes: { 'opening: a signal that aborts*': recode('ABORT_ERR', 'ABORTED') },
  },
  {
    net: "With a signal that has aborted already, `'close'` comes while the socket still connects.",
    ours: 'The socket is destroyed, as with a signal that aborts later.',
    why: "Node's own socket is neither destroyed nor connected then.",
    where: dialled,
    scenes: {
      'opening: a signal that has aborted': becomes({
        client: ['error ABORTED | closed pending destroyed -- in 0 out 0', 'close true | closed pending destroyed -- in 0 out 0'],
      }),
    },
  },
  {
    net: 'The option `onread` reads into a buffer of the caller.',
    ours: 'Refused with a `RangeError`.',
    why: 'Node reads into that buffer below the handshake of `hvsock://`.',
    where: dialled,
    scenes: {
      'reading: onread*': becomes({ client: ["refused: onread: must be left out: read by 'data' or 'readable', got an object"] }),
    },
  },
  {
    net: "A second `server.close()` before `'close'` gives a second `'close'`.",
    ours: "One `'close'`.",
    why: "`'close'` waits until the socket file is removed.",
    where: (traits) => traits.includes('bindServer'),
    scenes: {
      'serving: close without a connection, twice': edit((lines) =>
        lines.filter((line, i) => line !== 'close' || lines.indexOf(line) === i),
      ),
    },
  },
  {
    net: '`end()` sends EOF at once.',
    ours: "Where `halfClose` is false: EOF waits for the peer's end. After `lingerMs` of silence: `ETIMEDOUT`.",
    why: 'EOF would end both directions in the VMM, and what the guest still says would be lost.',
    where: hybridWithoutHalfClose,
    lingerMs: GIVES_UP_MS,
    scenes: Object.fromEntries(
      [
        'opening: a word each way, and both end',
        'opening: what a socket says of itself while it connects',
        'opening: once(socket, "connect")*',
        'opening: writes before the connection*',
        'opening: end with*',
        'opening: end in the listener of connect',
        'ending: the client, *: end',
        'ending: the client, *: end with data',
        'reading: pipe both ways',
        'reading: highWaterMark*',
        'writing: cork*',
        'writing: drain*',
        'writing: encodings*',
        'writing: arguments*',
        'writing: writes in the callback*',
        'waiting: an idle socket*',
        'waiting: the option timeout',
        'waiting: calls that only TCP needs*',
        'waiting: what IP has*',
        'waiting: once()*',
        'serving: getConnections*',
        'serving: close waits*',
        'serving: pauseOnConnect',
        'serving: a socket knows its server',
        'serving: a listener of connection*',
      ]
        .map((name) => [name, givesUp('client')])
        .concat([
          ['http: upgrade*', edit((lines) => lines.map((line) => (line === 'end' ? 'error ETIMEDOUT' : line)))],
          ['ending: end twice*', endedTwice],
          ['reading: pipeline, with a callback*', pipelineGivesUp],
        ]),
    ),
    cannot: ['ending: the client ends; *', 'reading: finished: both ways, and one'],
  },
  {
    net: '`end()` of an accepted socket sends EOF at once.',
    ours: 'The same as above on `listen` and `bindServer` at `hvsock://`, where `halfClose` is false.',
    why: "The guest's connection comes through the same VMM.",
    where: guestWithoutHalfClose,
    lingerMs: GIVES_UP_MS,
    scenes: Object.fromEntries(
      [
        'opening: pause, *',
        'opening: a server that speaks first',
        'ending: the server, *: end',
        'ending: the server, *: end with data',
        'ending: the server ends; a client that may go on does not',
        'ending: allowHalfOpen is set*',
        'ending: a megabyte*',
        'ending: the peer closes; this end has not read*',
        'ending: a paused socket*',
        'reading: read(n)*',
        'reading: unshift*',
        'reading: for await, as*',
        'reading: as a web stream',
        'waiting: the accepted socket times out',
      ].map((name) => [name, givesUp('server')]),
    ),
    cannot: ['ending: the server ends; the client may go on', 'ending: the peer ends with writes waiting*'],
  },
]

/** The scenes of a difference that a transport has. @param {string} name @param {readonly string[]} traits @returns {Difference[]} */
export function differencesOf(name, traits) {
  return differences.filter(({ where, scenes }) => where(traits) && Object.keys(scenes).some((pattern) => matches(pattern, name)))
}

/** Whether a transport cannot play a scene as the control does. @param {string} name @param {readonly string[]} traits */
export function cannotPlay(name, traits) {
  return differences.some(({ where, cannot = [] }) => where(traits) && cannot.some((pattern) => matches(pattern, name)))
}

/** What the control's logs become on a transport. @param {string} name @param {readonly string[]} traits @param {Logs} logs @returns {Logs} */
export function expected(name, traits, logs) {
  let result = logs
  for (const { scenes, net } of differencesOf(name, traits))
    for (const [pattern, change] of Object.entries(scenes)) {
      if (!matches(pattern, name)) continue
      const changed = change(result)
      if (JSON.stringify(changed) === JSON.stringify(result))
        throw new Error(`"${name}" shows nothing of a listed difference: ${net}`)
      result = changed
    }
  return result
}

/** @param {string} pattern @param {string} name */
function matches(pattern, name) {
  const parts = pattern.split('*').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
  return new RegExp(`^${parts.join('.*')}$`).test(name)
}

/** The table as the README has it. */
export function differencesTable() {
  return ['| `net` | `@upcall/vsock` | why |', '| --- | --- | --- |']
    .concat(differences.map(({ net, ours, why }) => `| ${net} | ${ours} | ${why} |`))
    .join('\n')
}

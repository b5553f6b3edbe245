import { faultsIn } from './faults-in.mjs'

// The CLI, and what carries its streams.
const relay = faultsIn('vsock', ['vsock', 'cli'])
const streams = faultsIn('foundation', ['foundation', 'cli'])

const cli = faultsIn('cli', ['cli'], 'apps')

export default [
  relay(
    'the EOF of an end without half-close is the end of both at once',
    'relay/machine.ts',
    "return of.kind === 'Finished' ? undefined : c[otherSide(side)].silenceMs",
    'return 0',
  ),
  relay('what was not taken is a success', 'relay/machine.ts', 'if (short !== undefined && cause === undefined)', 'if (false)'),
  relay(
    'an end that takes nothing is a success',
    'relay/machine.ts',
    'return part(c, state, stuck && { side: stuck, error: stalledError() })',
    'return part(c, state)',
  ),
  relay(
    'bytes for an end that has gone do not count as lost',
    'relay/machine.ts',
    'return c[otherSide(side)].mustBeHeard ? unlessOver(c, next) : part(c, next)',
    'return part(c, next)',
  ),
  relay(
    'an end that takes no more fills the memory',
    'relay/relay.ts',
    "void refused.then((error) => tell({ type: 'refused', to: side, error }))",
    '',
  ),
  relay('a source that has closed is waited for', 'relay/end.ts', 'watchPeer(socket, clock)', ''),
  relay('a stream that was cut off is a success', 'relay/machine.ts', "aborted: cause === 'aborted'", 'aborted: false'),
  relay(
    'a slow reader counts as silence',
    'relay/machine.ts',
    '&& !waiting) limits.push(c.lingerMs)',
    ') limits.push(c.lingerMs)',
  ),
  streams(
    'a stream whose peer takes no more is cut off',
    'streams.ts',
    "?.code !== 'EPIPE' || stream.readableEnded",
    "?.code !== 'EPIPE' || true",
  ),
  relay(
    'a dialer that was closed is not told of',
    'forward/listener.ts',
    'if (refusal.port !== guestPort) onRefused',
    'if (false) onRefused',
  ),
  streams('an end in memory forgets what broke it', 'pair.ts', 'other.destroy(error ?? undefined)', 'other.destroy()'),
  streams(
    'an end in memory that closes is a break',
    'pair.ts',
    "other.once('end', () => other.destroy()).push(null)",
    'other.destroy()',
  ),
  cli(
    'devices that are as before are made again',
    'commands/vsock/device/running-device.ts',
    "return isDeepStrictEqual(before, settings) ? 'none' : 'limits'",
    "return 'replace'",
  ),
  cli(
    'what stands in the way of a new device is closed after it',
    'commands/vsock/device/device-set.ts',
    '    for (const { settings } of moved) await this.#running.get(settings.guestCid)!.closeFront()\n',
    '',
  ),
  cli(
    'a guest writes as many lines as it likes',
    'commands/vsock/device/journal.ts',
    'const said = filled >= 1',
    'const said = true',
  ),
  cli(
    'a lost link is not dialled again',
    'commands/vsock/device/dialled-link.ts',
    'await pause(backoffDelay(PACE, attempt), signal)',
    'return',
  ),
  cli(
    'links that are as before are dialled again',
    'commands/vsock/device/links.ts',
    'const dials = settings.dial !== before.dial',
    'const dials = true',
  ),
  cli(
    "host-cids may have the guest's own CID",
    'commands/vsock/device/settings.ts',
    "if (hostCids !== 'any' && hostCids.includes(guestCid))",
    'if (false)',
  ),
  cli('two devices may want the same path', 'commands/vsock/device/settings.ts', 'if (taken.has(claim))', 'if (false)'),
  cli('a far word counts as a typo', 'suggest.ts', 'if (apart > limit || apart > least) continue', 'if (apart > least) continue'),
  cli(
    'completion takes the value of an option for an argument',
    'completion/engine.ts',
    'if (flag === word && option.required) this.pending = option',
    '',
  ),
  cli('bash completion evaluates what is on the line', 'completion/scripts.ts', '< <("', '< <(eval "'),
  cli('bash completion repeats what is in front of a colon', 'completion/scripts.ts', '#"$cut"}', '}'),
  cli('doctor: a module that uses another is taken for it', 'doctor/modules.ts', 'line.startsWith(', 'line.includes('),
  cli('doctor: a check that hangs is waited for', 'doctor/examine.ts', 'Promise.race([', 'Promise.all(['),
  cli(
    'doctor: a silent guest hides what was found before it',
    'commands/doctor.ts',
    'timeoutMs: TARGET_STEPS * timeoutMs',
    'timeoutMs',
  ),
  cli('doctor: programs of the system folders are not found', 'doctor/this-system.ts', ', ...SYSTEM_PATH]', ']'),
  cli('doctor: AF_VSOCK is connected', 'doctor/target.ts', "if (target.transport === 'vsock')", 'if (false)'),
  cli('man: a line of text is read as a macro', 'man/mdoc.ts', "replace(/^(?=[.'])/, '\\\\&')", "replace('', '')"),
  cli('the rate leaves one direction out', 'streams/traffic.ts', '+ now.received - before.received', ''),
  cli('progress goes on after the stream', 'streams/traffic.ts', '() => cancel() }', '() => {} }'),
  cli('--no-progress shows it', 'output.ts', 'if (show === false) return silent', ''),
  cli('forward: --progress is not heard', 'commands/vsock/forward.ts', '{ show: options.progress }', '{}'),
  cli('connect: --progress is not heard', 'commands/vsock/connect.ts', '{ show, shared }', '{ shared }'),
  cli(
    'connections of a capture that never end are all remembered',
    'decode/connections.ts',
    'if (this.#all.size > MOST_CONNECTIONS) {',
    'if (false) {',
  ),
  cli('--verbose names the error and not its cause', 'errors-page.ts', 'codes.findLast(', 'codes.find('),
  cli('a taken socket is explained as wrong usage', 'errors.ts', 'codes.length > 1 && ', 'false && '),
  cli(
    'a misspelt code is an errno of the kernel',
    'commands/explain.ts',
    'Object.hasOwn(constants.errno, code)',
    "code.startsWith('E')",
  ),
  cli('all that is equally near was meant', 'suggest.ts', 'near.length > MOST_MEANT', 'false'),
  cli(
    'images are made with apt that can be installed anywhere',
    'doctor/checks.ts',
    "name === 'apt' || name === 'dpkg'",
    'name === undefined',
  ),
]

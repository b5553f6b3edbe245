import { faultsIn } from './faults-in.mjs'

const cli = faultsIn('cli', ['cli'], 'apps')

export default [
  cli(
    'the EOF of a peer without half-close is the end of stdin',
    'streams/relay.ts',
    'void carrier.to.lastCall.then(() => {',
    'void carrier.to.lastCall.then(() => {\n      onSilence()',
  ),
  cli('what was not taken is a success', 'streams/relay.ts', 'if (lost && !end.broken)', 'if (false)'),
  cli('a peer that takes nothing is a success', 'streams/relay.ts', 'return stuck ?', 'return false ?'),
  cli('what a peer that has gone was to hear is no loss', 'streams/relay.ts', 'if (from.mustBeHeard) {', 'if (false) {'),
  cli(
    'a peer that takes no more fills the memory',
    'streams/relay.ts',
    'void carrier.to.refused.then((error) => carrier.refuse(error))',
    '',
  ),
  cli('a source that has closed is waited for', 'streams/party.ts', 'watchPeer(socket, clock)', ''),
  cli(
    'a stream that was cut off is a success',
    'streams/relay.ts',
    'aborted.then(() => ({ cut: true }))',
    'aborted.then(() => ({}))',
  ),
  cli(
    'a dialer that was closed is not told of',
    'streams/listener.ts',
    'if (refusal.port !== guestPort) onRefused',
    'if (false) onRefused',
  ),
  cli('an end in memory forgets what broke it', 'streams/pair.ts', 'other.destroy(error ?? undefined)', 'other.destroy()'),
  cli(
    'an end in memory that closes is a break',
    'streams/pair.ts',
    "other.once('end', () => other.destroy()).push(null)",
    'other.destroy()',
  ),
]

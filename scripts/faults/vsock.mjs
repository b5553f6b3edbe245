import { faultsIn } from './faults-in.mjs'

const vsock = faultsIn('vsock')

export default [
  vsock(
    'what follows OK is lost',
    'dial.ts',
    'if (received.length > reply.end) socket.unshift(received.subarray(reply.end))',
    '',
  ),
  vsock('a reply needs no newline', 'handshake.ts', 'const canGrow = bytes.length < REPLY_MAX', 'const canGrow = true'),
  vsock(
    'EACCES is tried again',
    'errors.ts',
    "case 'EPERM':\n      return new VsockError({\n        ...init,",
    "case 'EPERM':\n      return new VsockError({\n        ...init,\n        retryable: true,",
  ),
  vsock(
    'a live server loses its path',
    'bind.ts',
    "if (answer === 'ECONNREFUSED') return unlink",
    "if (answer !== 'ENOENT') return unlink",
  ),
  vsock(
    'a command in two pieces is waited for',
    'hybrid.ts',
    "if (command.kind === 'incomplete' && this.#ways.pieces) return",
    "if (command.kind === 'incomplete') return",
  ),
  vsock(
    'a route that gives no stream is joined',
    'hybrid.ts',
    "if (stream && typeof stream.pipe !== 'function') {",
    'if (false) {',
  ),
  vsock(
    'a connection that went away before it was taken is handed over',
    'listen.ts',
    "socket.on('error', ignoreError).once('close', forget)",
    "socket.on('error', ignoreError)",
  ),
  vsock(
    "a dialer that breaks off leaves the guest's end",
    'join.ts',
    'breakOff: (error) => void guest.destroy(error)',
    'breakOff: () => {}',
  ),
  vsock('a listener without descriptors left spins', 'native/listen.ts', 'this.#binding.unwatch(this.#descriptor)', ''),
  vsock('a listener leaves the place that it kept', 'native/listen.ts', 'if (this.#spare) this.#binding.close(this.#spare)', ''),
  vsock(
    'each connection puts a listener on a shared signal',
    'abort.ts',
    'waiting.get(signal) ?? listenTo(signal)',
    'listenTo(signal)',
  ),
  vsock('the last to leave a shared signal leaves the listener', 'abort.ts', "signal.removeEventListener('abort', tell)", ''),
  vsock('a plain file is taken for a socket without a listener', 'errors.ts', 'if (kind !== undefined)', 'if (false)'),
  vsock('a retry that is a number is taken for true', 'connect.ts', "typeof retry !== 'object' || ", ''),
  vsock('the sign for no CID is handed out as a CID', 'native/vsock.ts', 'cid === Cid.any ? undefined : cid', 'cid'),
  vsock('a buffer that credit cannot tell is taken', 'native/options.ts', 'value >= 1 && value <= MAX_CREDIT', 'value >= 1'),
  vsock('a backlog that cannot be is taken', 'bind.ts', 'backlog < 1 || backlog > 0x7fff_ffff', 'false'),
  vsock(
    'a command in two pieces is refused',
    'hybrid.ts',
    'profile === undefined ? { pieces: true, halfClose: true }',
    'profile === undefined ? { pieces: false, halfClose: true }',
  ),
  vsock(
    "a profile's half-close wins over the option",
    'hybrid.ts',
    'halfClose: halfClose ?? ways.halfClose',
    'halfClose: ways.halfClose',
  ),
  vsock(
    'half-close before the reply is a farewell',
    'hybrid.ts',
    'if (!this.#ways.halfClose) return onGone()',
    'return onGone()',
  ),
  vsock(
    'a dialer that closes after its half-close is not looked for',
    'hybrid.ts',
    'unwatch = watchPeer(socket, this.#clock)',
    '',
  ),
  vsock(
    'close() ends what it cuts',
    'hybrid.ts',
    "guest.destroy(new Error('the server of its connection was closed'))",
    'guest.destroy()',
  ),
  vsock('a peer is looked at once only', 'ends.ts', 'if (!error) again()', 'if (!error) return'),
  vsock('an answer that was not delivered does not count as lost', 'join.ts', 'lost > 0 ?', 'false ?'),
  vsock('HTTP/2 works on the methods, and drops what waits', 'conceal.ts', 'if (isHttp2()) {', 'if (false) {'),
  vsock('HTTP/2 does not see that the guest has gone', 'conceal.ts', "socket.once('end', () => socket.end())", ''),
  vsock('TLS ends a socket below its end()', 'conceal.ts', 'if (depth > 0 || !handle) return handle', 'return handle'),
  vsock(
    'the end of a socket takes from TLS what it has not handed on',
    'conceal.ts',
    'state.autoDestroy = false',
    'state.autoDestroy = true',
  ),
]

import { faultsIn } from './faults-in.mjs'

const server = faultsIn('server')

export default [
  server(
    'an unknown service is waited for',
    'machine/table.ts',
    "refused: to(['Ending'], (c, _state, { end }) => finish(c, end)),",
    "refused: to(['Greeting'] as never, (c, { rest }) => ({ kind: 'Greeting', rest, deadline: c.now }) as never),",
  ),
  server(
    'bytes after the service byte are lost',
    'machine/table.ts',
    "{ kind: 'Opening', rest: chunk.subarray(1) }",
    "{ kind: 'Opening', rest: new Uint8Array(0) }",
  ),
  server(
    'the service byte is waited for for ever',
    'machine/table.ts',
    "c.now < state.deadline ? state : finish(c, { reason: 'service-byte-timeout' }),",
    'state,',
  ),
  server(
    'more is read while a request is handled',
    'machine/connection-machine.ts',
    "return this.#state.kind === 'Selecting' || this.#state.kind === 'Reading'",
    'return true',
  ),
  server(
    'a client may leave a reply unread for ever',
    'machine/table.ts',
    "return c.now < state.deadline ? state : abandon(c, { reason: 'write-timeout' })",
    'return state',
  ),
  server(
    'the time in which a service makes a reply counts against the client',
    'machine/table.ts',
    "return { kind: 'Replying' }",
    "return { kind: 'Replying', deadline: c.now } as In<'Replying'>",
  ),
  server(
    'the source of the replies is not told that they are not wanted',
    'connection.ts',
    '    this.#stopReplies(failed)\n',
    '',
  ),
  server(
    'replies are made faster than the client takes them',
    'connection.ts',
    'full = bytes.length > 0 && !this.#stream.write(bytes)',
    'full = bytes.length > 0 && !this.#stream.write(bytes) && false',
  ),
  server(
    'replies that arrive after the end are kept',
    'connection.ts',
    'if (this.#gone) this.#stopReplies(',
    'if (false) this.#stopReplies(',
  ),
  server(
    'a greeting that is not bytes is written',
    'checked-service.ts',
    "if (!(greeting instanceof Uint8Array)) wrongType('greeting', 'a Uint8Array', greeting)",
    '',
  ),
  server(
    'replies that cannot be iterated are iterated',
    'replies.ts',
    "if (typeof begin !== 'function') throw notReplies(show(replies))",
    '',
  ),
  server(
    'an async iterable is pulled as a plain one',
    'replies.ts',
    'const begin: unknown = later ?? now',
    'const begin: unknown = now ?? later',
  ),
  server('a reply that is not bytes is written', 'replies.ts', 'if (!(value instanceof Uint8Array)) throw', 'if (false) throw'),
  server('a service may lack its function', 'server.ts', '.open`, service.open)', '.open`, () => {})'),
  server('a session may lack its functions', 'checked-service.ts', "  checkFunction('receive', session.receive)\n", ''),
  server(
    'an iterator that returns nothing is waited for',
    'replies.ts',
    "if (typeof result !== 'object' || result === null || isPromise(result))",
    'if (result === null)',
  ),
  server(
    'a fault of a service is not published',
    'connection.ts',
    '    trace(fault, text, this.id, this.remote, where, error)\n',
    '',
  ),
  server('a delay may be longer than a timer', 'delays.ts', '!(ms >= 0 && ms <= LONGEST_MS)', '!(ms >= 0)'),
  server('text is taken for bytes', 'connection.ts', 'if (!(chunk instanceof Uint8Array)) {', 'if (chunk === undefined) {'),
]

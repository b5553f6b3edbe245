import { faultsIn } from './faults-in.mjs'

const server = faultsIn('server')

export default [
  server(
    'an unknown service is waited for',
    'machine/connection.ts',
    'refused: ({ end }, _state, at) => ending(end, at),',
    "refused: (_event, { rest }, at) => [{ name: 'Greeting', rest, deadline: at.now }],",
  ),
  server(
    'bytes after the service byte are lost',
    'machine/connection.ts',
    "{ name: 'Opening', rest: chunk.subarray(1) }",
    "{ name: 'Opening', rest: new Uint8Array(0) }",
  ),
  server(
    'the service byte is waited for for ever',
    'machine/connection.ts',
    "tick: (_event, state, at) => (at.now < state.deadline ? [state] : ending({ reason: 'service-byte-timeout' }, at)),",
    'tick: (_event, state) => [state],',
  ),
  server(
    'more is read while a request is handled',
    'machine/connection.ts',
    "return this.#state.name === 'AwaitingService' || this.#state.name === 'Reading'",
    'return true',
  ),
  server(
    'a long time is a timer that fires at once',
    'connection.ts',
    'Math.min(Math.max(0, deadline - clock.now()), LONGEST_TIMER_MS)',
    'Math.max(0, deadline - clock.now())',
  ),
  server('the source of the replies is not told that they are not wanted', 'connection.ts', '[() => this.#stopWriting(), ', '['),
  server('a slow reader has no time of its own', 'connection.ts', "this.#run({ name: 'progress' })", ''),
  server(
    'a greeting that is not bytes is written',
    'connection.ts',
    "greeting = checkBytes('greeting', session.greeting)",
    'greeting = session.greeting',
  ),
  server('replies that are not iterable are iterated', 'connection.ts', '      checkIterable(replies)\n', ''),
  server('a reply that is not bytes is written', 'connection.ts', "checkBytes('reply', result.value)", 'result.value'),
  server('a service may lack its function', 'server.ts', '.open`, service.open)', '.open`, () => {})'),
  server('a session may lack its functions', 'connection.ts', "      checkFunction('receive', session.receive)\n", ''),
  server(
    'an iterator that gives nothing is waited for',
    'connection.ts',
    "if (typeof result !== 'object' || result === null || isPromise(result))",
    'if (result === null)',
  ),
  server(
    'a fault of a service is not published',
    'connection.ts',
    '    this.#shared.onServiceError(this, { service: this.#asked, where, error })\n',
    '',
  ),
  server('a delay may be longer than a timer', 'connection.ts', '!(ms >= 0 && ms <= LONGEST_TIMER_MS)', '!(ms >= 0)'),
  server('text is taken for bytes', 'connection.ts', 'if (!(chunk instanceof Uint8Array)) {', 'if (chunk === undefined) {'),
]

import { faultsIn } from './faults-in.mjs'

const foundation = faultsIn('foundation')

export default [
  foundation("a signal's abort is not listened to", 'abort.ts', "signal.addEventListener('abort', tell, { once: true })", ''),
  foundation(
    'each wait puts a listener on a shared signal',
    'abort.ts',
    'waiting.get(signal) ?? listenTo(signal)',
    'listenTo(signal)',
  ),
  foundation(
    'the first to leave a shared signal takes the listener away from the others',
    'abort.ts',
    'if (all.size > 0 || waiting.get(signal) !== all) return',
    'if (waiting.get(signal) !== all) return',
  ),
  foundation(
    'the last to leave a shared signal leaves the listener',
    'abort.ts',
    "signal.removeEventListener('abort', tell)",
    '',
  ),
  foundation(
    'a listener that throws keeps an abort from the others',
    'abort.ts',
    'callBack(fn, signal.reason)',
    'fn(signal.reason)',
  ),
  foundation('the delay is not jittered', 'backoff.ts', '+ part * (cap', '+ (cap'),
  foundation('the delay does not double', 'backoff.ts', '2 ** attempt', '2'),
  foundation('a random number may be anything', 'backoff.ts', "typeof part !== 'number' || !(part >= 0 && part <= 1)", 'false'),
  foundation('a long time is a timer that fires at once', 'clock.ts', 'Math.min(left, LONGEST_TIMER_MS)', 'left'),
  foundation('a long time ends after its first part', 'clock.ts', 'left > part ? () => wait(left - part) : fn', 'fn'),
  foundation('an event that arrives while the machine runs is not kept', 'driver.ts', 'if (this.#handling) return', ''),
  foundation('effects of an event overtake those under way', 'driver.ts', 'if (!this.#performing) {', 'if (true) {'),
  foundation(
    'what a joined stream has taken is remembered until it has taken all',
    'join.ts',
    'if (2 * first >= lengths.length)',
    'if (first === lengths.length)',
  ),
  foundation(
    'a promise that is refused may reject unhandled',
    'returned.ts',
    'Promise.resolve(value).catch(() => {})',
    'void value',
  ),
  foundation(
    'the descriptor behind a short path stays open',
    'long-path.ts',
    '  } finally {\n    opened.close()\n  }',
    '  } finally {\n  }',
  ),
  foundation(
    'a long path needs its directories to be readable',
    'long-path.ts',
    'openSync(path, O_PATH | flags)',
    'openSync(path, flags)',
  ),
  foundation(
    'a live server loses its path',
    'unix-path.ts',
    "if (answer === 'ECONNREFUSED') return unlink",
    "if (answer !== 'ENOENT') return unlink",
  ),
  foundation(
    'a signal does not take its call out of the queue',
    'queue.ts',
    '        this.#waiting.splice(this.#waiting.indexOf(waiting), 1)\n',
    '',
  ),
]

import { faultsIn } from './faults-in.mjs'

const qemu = faultsIn('qemu')

export default [
  qemu('a deadline of a month is over at once', 'bounded.ts', 'if (ms > LONGEST_TIMER_MS) return () => {}', ''),
  qemu('a guest is emulated without memory barriers', 'argv.ts', 'Math.max(cpus, 2)', 'cpus'),
  qemu('a line without an end is kept whole', 'console.ts', 'while (this.#partial.length > LONGEST_LINE)', 'while (false)'),
  qemu('long lines are kept all', 'console.ts', '|| this.#characters > KEPT_CHARACTERS', ''),
  qemu('a greeting may be anything', 'qmp.ts', "if (typeof greeting?.version?.qemu?.major === 'number') this", 'if (true) this'),
  qemu('any setpriv is taken for one that can', 'process.ts', 'if (status === 0) return undefined', 'return undefined'),
  qemu('each start asks setpriv again', 'process.ts', 'if (!probed.has(setpriv))', ''),
  qemu('what a QEMU lacks is not named', 'guest.ts', 'if (lacks !== undefined) return', 'if (false) return'),
  qemu('a monitor that is taken is not named', 'qmp.ts', 'handshakeMs === undefined ? ONE_CLIENT : undefined', 'undefined'),
  qemu('each client of a monitor numbers its commands from 1', 'qmp.ts', 'randomInt(2 ** 32) * 2 ** 16', '1'),
  qemu(
    'a deadline of NaN is no time at all',
    'bounded.ts',
    "typeof deadlineMs !== 'number' || Number.isNaN(deadlineMs)",
    'false',
  ),
  qemu(
    'a package that apt passes over is missing silently',
    'image/debian.ts',
    'if (!names.every((name) => found.includes(name))) await refuseUnknown(names, apt)',
    '',
  ),
  qemu('what is no Debian is told to install apt', 'image/tools.ts', 'if (missing.some(isDebians)) return', 'if (false) return'),
  qemu('a wait takes a signal as it comes', 'bounded.ts', '    checkSignal(what, signal)\n', ''),
  qemu('a guest is booted with whatever signal', 'guest.ts', "  checkSignal('boot', signal)\n", ''),
  qemu('a folder is a program', 'process.ts', 'return statSync(path).isFile()', 'return true'),
  qemu('the last 0 lines are all of them', 'console.ts', 'lines.slice(Math.max(0, lines.length - count))', 'lines.slice(-count)'),
]

import { faultsIn } from './faults-in.mjs'

const qemu = faultsIn('qemu')

export default [
  qemu('a guest is emulated without memory barriers', 'argv.ts', 'Math.max(cpus, 2)', 'cpus'),
  qemu('a line without an end is kept whole', 'console-lines.ts', "{ max: LONGEST_LINE, longer: 'cut' }", ''),
  qemu('long lines are kept all', 'console-lines.ts', '|| this.#characters > KEPT_CHARACTERS', ''),
  qemu('a greeting may be anything', 'qmp.ts', "if (typeof greeting?.version?.qemu?.major === 'number') this", 'if (true) this'),
  qemu('any setpriv is taken for a capable one', 'process.ts', 'if (status === 0) return undefined', 'return undefined'),
  qemu('each start asks setpriv again', 'process.ts', 'if (!probed.has(setpriv))', ''),
  qemu('what a QEMU lacks is not named', 'boot-error.ts', 'if (lacks)', 'if (false)'),
  qemu(
    'a monitor that is taken is not named',
    'qmp.ts',
    'handshakeTimeoutMs === undefined ? ONE_CLIENT : undefined',
    'undefined',
  ),
  qemu('each client of a monitor numbers its commands from 1', 'qmp.ts', 'randomInt(2 ** 32) * 2 ** 16', '1'),
  qemu(
    'a package that apt passes over is missing silently',
    'image/debian.ts',
    'if (!names.every((name) => found.includes(name))) await refuseUnknown(names, apt)',
    '',
  ),
  qemu(
    'a machine without Debian is told to install apt',
    'image/tools.ts',
    'if (missing.some(isDebians)) return',
    'if (false) return',
  ),
  qemu('a guest is booted with any signal', 'guest.ts', '  checkSignal(signal)\n', ''),
  qemu('a folder is a program', 'process.ts', 'return statSync(path).isFile()', 'return true'),
  qemu('the last 0 lines are all of them', 'console.ts', 'lines.slice(Math.max(0, lines.length - count))', 'lines.slice(-count)'),
  qemu(
    'a listener that throws ends the chunk',
    'qmp.ts',
    "callBack(() => this.emit('event', event))",
    "this.emit('event', event)",
  ),
  qemu(
    'a wait hears of an event after the listeners',
    'qmp.ts',
    '    for (const waiter of [...this.#waiters]) waiter.onEvent(event)\n',
    '',
  ),
  qemu('a log that throws ends the process', 'log.ts', 'write: (text) => callBack(log, text)', 'write: (text) => log?.(text)'),
  qemu('what onLine throws is lost', 'image/run.ts', '      onError(error)\n', ''),
  qemu('a locked file is not known', 'qmp-text.ts', "  [/\\block\\b/, 'lock'],\n", ''),
]

import { closeSync, openSync, writeSync } from 'node:fs'

/** Where a console's text goes as it comes. */
export interface Log extends Disposable {
  write(text: string): void
}

/**
 * A file for what a console prints, written anew and synchronously, so that nothing is lost when the process dies. If it cannot be written to
 * any more, say because the disk is full, that is told once, and the guest goes on without it.
 *
 * @throws if it cannot be opened.
 */
export function openLogFile(path: string, onFailure: (why: string) => void): Log {
  let fd: number | undefined = openSync(path, 'w')
  const close = () => {
    if (fd !== undefined) closeSync(fd)
    fd = undefined
  }
  return {
    write(text) {
      if (fd === undefined) return
      try {
        writeSync(fd, text)
      } catch (error) {
        close()
        onFailure((error as Error).message)
      }
    },
    [Symbol.dispose]: close,
  }
}

/** A file, whose failure is told by a process warning; or a function; or nothing. */
export function openLog(log: string | ((text: string) => void) | undefined): Log {
  if (typeof log !== 'string') return { write: log ?? (() => {}), [Symbol.dispose]() {} }
  return openLogFile(log, (why) => process.emitWarning(`console log ${log}: ${why}; nothing more is written to it`))
}

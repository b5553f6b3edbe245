import { closeSync, openSync, writeSync } from 'node:fs'
import { callBack } from '@upcall/foundation/callback'
import { textOf } from '@upcall/foundation/error'

/** Where a console's text goes as it comes. */
export interface Log extends Disposable {
  write(text: string): void
}

/**
 * A file for what a console prints, emptied first and written synchronously, so that nothing is lost when the process dies. When it cannot be
 * written to any more (the disk is full, say), `onFailure` is called once, and the guest goes on without it.
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
        callBack(onFailure, textOf(error))
      }
    },
    [Symbol.dispose]: close,
  }
}

/** A file, whose failure becomes a process warning; or a function, whose errors are uncaught exceptions; or nothing. */
export function openLog(log: string | ((text: string) => void) | undefined): Log {
  if (typeof log !== 'string') return { write: (text) => callBack(log, text), [Symbol.dispose]() {} }
  return openLogFile(log, (why) => process.emitWarning(`console log ${log}: ${why}. Nothing more is written to it.`))
}

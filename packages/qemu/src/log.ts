import { closeSync, openSync, writeSync } from 'node:fs'

/** Where a console's text goes as it comes. */
export interface Log {
  write(text: string): void
  close(): void
}

/** A file, written anew and synchronously, so that nothing is lost when the process dies; or a function; or nothing. */
export function openLog(log: string | ((text: string) => void) | undefined): Log {
  if (typeof log !== 'string') return { write: log ?? (() => {}), close() {} }
  let fd: number | undefined = openSync(log, 'w')
  return {
    write(text) {
      if (fd === undefined) return
      try {
        writeSync(fd, text)
      } catch (error) {
        // A full disk is no reason to end the guest.
        process.emitWarning(`console log ${log}: ${(error as Error).message}; nothing more is written to it`)
        this.close()
      }
    },
    close() {
      if (fd !== undefined) closeSync(fd)
      fd = undefined
    },
  }
}

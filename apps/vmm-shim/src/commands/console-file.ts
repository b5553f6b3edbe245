import { closeSync, openSync, writeSync } from 'node:fs'

export interface ConsoleFile extends Disposable {
  write(text: string): void
}

/**
 * A file for what the guest's console prints, written anew and at once. If it cannot be written to any more, say because the disk is full,
 * that is told once, and the guest goes on without it.
 *
 * @throws if it cannot be opened.
 */
export function openConsoleFile(path: string, onFailure: (why: string) => void): ConsoleFile {
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

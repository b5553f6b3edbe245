/** An error as a socket gives it, `errno` and `syscall` included. */
export function socketError(code: 'ECONNRESET' | 'EPIPE', syscall: 'read' | 'write'): NodeJS.ErrnoException {
  const errno = code === 'ECONNRESET' ? -104 : -32
  return Object.assign(new Error(`${syscall} ${code}`), { code, errno, syscall })
}

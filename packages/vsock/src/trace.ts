import { traceOf } from '@upcall/foundation/trace'

/** What connects, listens, accepts and fails: `NODE_DEBUG=upcall-vsock`, diagnostics channel `upcall:vsock`. */
export const trace = traceOf('vsock')

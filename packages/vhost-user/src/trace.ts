import { traceOf } from '@upcall/foundation/trace'

/** `NODE_DEBUG=upcall-vhost-user` and the diagnostics channel `upcall:vhost-user`. */
export const trace = traceOf('vhost-user')

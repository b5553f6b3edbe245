// All of AF_VSOCK that loopback can show, in this order: the last one takes the modules away.
import './compliance.mjs'
import './errors.mjs'
import './sockets.mjs'
import './seqpacket.mjs'
import './http.mjs'
import './socat.mjs'
import './inherited.mjs'
import './parity.mjs'
import './upcall.mjs'
import './device.mjs'
import './load.mjs'

// Imports do not wait for one another where a program awaits something at its top. These two run when all the others are registered.
await import('./datagram.mjs')
await import('./without-modules.mjs')

// All of AF_VSOCK that loopback can show, in this order: the last one takes the modules away.
import './compliance.mjs'
import './errors.mjs'
import './sockets.mjs'
import './http.mjs'
import './socat.mjs'
import './upcall.mjs'
import './load.mjs'
import './without-modules.mjs'

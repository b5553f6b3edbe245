// What of loopback.mjs takes a minute: without the load, and without Node's own HTTP on top.
import './compliance.mjs'
import './errors.mjs'
import './sockets.mjs'
import './socat.mjs'
import './upcall.mjs'
import './without-modules.mjs'

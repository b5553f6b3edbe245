// What of loopback.mjs takes a minute: without the load, and without HTTP and socat as peers.
import './compliance.mjs'
import './errors.mjs'
import './sockets.mjs'
import './seqpacket.mjs'
import './upcall.mjs'
import './without-modules.mjs'

// The same as loopback.mjs, without the hours of traffic in load.mjs.
import './compliance.mjs'
import './errors.mjs'
import './sockets.mjs'
import './http.mjs'
import './socat.mjs'
import './upcall.mjs'
import './without-modules.mjs'

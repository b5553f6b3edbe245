// What of loopback.mjs takes a minute: without the load, and without HTTP and socat as peers. `--small`: without the CLI, too, each command
// of which is a Node that starts.
import './compliance.mjs'
import './errors.mjs'
import './sockets.mjs'
import './seqpacket.mjs'

if (!process.argv.includes('--small')) await import('./upcall.mjs')
await import('./without-modules.mjs')

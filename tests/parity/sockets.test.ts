// A program that uses `net`, moved here by changing the one line that connects or listens, behaves the same. The control is `net` on the
// same Node.
import { compare } from './compare.js'
import { scenes } from './scenes/index.mjs'
import { transports } from './transports.js'

const { counting: _, ...groups } = scenes

for (const transport of transports) compare(transport, groups)

// Sockets and descriptors of this process, which nothing else may open meanwhile.
import { compare } from './compare.js'
import { scenes } from './scenes/index.mjs'
import { transports } from './transports.js'

for (const transport of transports) compare(transport, { counting: scenes.counting })

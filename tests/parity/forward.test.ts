// Through `forward`.
import { compare } from './compare.js'
import { scenes } from './scenes/index.mjs'
import { bridged } from './transports.js'

const { counting: _, ...groups } = scenes

compare(bridged, groups)

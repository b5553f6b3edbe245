export type { Side } from './direction.js'
export { type RelayEnd, type SocketEndOptions, socketEnd } from './end.js'
export type { Abilities, Broken, Carried, Relayed } from './machine.js'
export { type RelayOptions, relay } from './relay.js'

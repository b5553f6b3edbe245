export type { GuestBoot } from './boot.js'
export type { ReadyOptions } from './boots.js'
export { type NotifyCredential, type NotifyCredentialOptions, notifyCredential } from './credential.js'
export { type ListenNotifyOptions, listenNotify, type NotifyAddress, type WaitForNotifyOptions, waitForNotify } from './listen.js'
export type { NotifyMessage, NotifySender } from './message.js'
export type { NotifyRefusalReason } from './read.js'
export {
  type NotifyingConnection,
  NotifyReceiver,
  type NotifyReceiverEvents,
  type NotifyReceiverOptions,
  type NotifyRefusal,
} from './receiver.js'

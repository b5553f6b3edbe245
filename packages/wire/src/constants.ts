// The constants of both ends of the wire. They are the guest kernel's, so no release of this package changes them.
// Source: the guest kernel patches that Kata Containers ships for Linux 5.10, 6.1, 6.12 and 6.18, and dbs-upcall 0.3.0.

/** The vsock port on which the guest kernel's upcall server listens (0xDB). `dragonball_upcall_srv.port=@<port>` moves it. */
export const UPCALL_PORT = 0xdb

/** The service byte of the device manager, `'d'`, the only service of the kernel. */
export const DEVICE_MANAGER_BYTE = 0x64

/** Bytes in every message of the device manager, in both directions, padding included. */
export const MESSAGE_SIZE = 1024

/** Bytes in the header that every message begins with. A request's load follows it directly. */
export const HEADER_SIZE = 16

/** Bytes before a reply's load: the header and the i32 result. */
export const REPLY_HEADER_SIZE = 20

/** The longest load of a request, in bytes. */
export const MAX_REQUEST_LOAD = MESSAGE_SIZE - HEADER_SIZE

/** The longest load of a reply, in bytes. */
export const MAX_REPLY_LOAD = MESSAGE_SIZE - REPLY_HEADER_SIZE

/** The header's first word: "DM" and version 1.0. */
export const MAGIC_VERSION = 0x444d0100

/** `apic_ver` as Dragonball sends it. Linux 6.12 and later ignore it, and every kernel ignores it in DEL_CPU. */
export const DEFAULT_APIC_VERSION = 0x14

/** The header's `msg_type`. A reply echoes its request's. ADD_MEM and DEL_MEM are declared, but no kernel handles them. */
export const MessageType = {
  CONNECT: 0,
  ADD_CPU: 1,
  DEL_CPU: 2,
  ADD_MEM: 3,
  DEL_MEM: 4,
  ADD_MMIO: 5,
  DEL_MMIO: 6,
  ADD_PCI: 7,
  DEL_PCI: 8,
} as const

/** The name of a message type, as in {@link MessageType}. */
export type MessageTypeName = keyof typeof MessageType

const names = Object.keys(MessageType) as MessageTypeName[]

/** The name of a `msg_type`, or undefined for a type that the protocol does not declare (9 and above). */
export function messageTypeName(messageType: number): MessageTypeName | undefined {
  return names[messageType]
}

/** The guest's architecture. It decides the layout of CPU requests and replies, and nothing on the wire names it. */
export type Arch = 'x86_64' | 'aarch64'

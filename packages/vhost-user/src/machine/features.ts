/** VIRTIO_VSOCK_F_SEQPACKET (virtio 1.2, 5.10.3): sockets of messages. */
export const F_SEQPACKET = 1n << 1n
/** Device features (virtio 1.2, 6) that are implemented here, and nothing else. */
export const F_INDIRECT_DESC = 1n << 28n
export const F_EVENT_IDX = 1n << 29n
export const F_VERSION_1 = 1n << 32n
/** VHOST_USER_F_PROTOCOL_FEATURES: not a feature of the device; QEMU exits without it. */
export const F_PROTOCOL_FEATURES = 1n << 30n
export const DEVICE_FEATURES = F_SEQPACKET | F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1 | F_PROTOCOL_FEATURES

/**
 * Protocol features: whatever is offered here will be used by QEMU, and must work. MQ is offered by every back end that follows the
 * specification, also by one with a fixed number of rings.
 */
export const P_MQ = 1n << 0n
export const P_REPLY_ACK = 1n << 3n
export const P_CONFIG = 1n << 9n
export const P_RESET_DEVICE = 1n << 13n
export const P_CONFIGURE_MEM_SLOTS = 1n << 15n
/**
 * Not in `PROTOCOL_FEATURES`: it makes every region 8 bytes longer. QEMU from 8.1 on accepts the bit from anybody and still sends the
 * short form, so it is offered only by a platform that maps the memory of Xen domains.
 */
export const P_XEN_MMAP = 1n << 17n
export const PROTOCOL_FEATURES = P_MQ | P_REPLY_ACK | P_CONFIG | P_RESET_DEVICE | P_CONFIGURE_MEM_SLOTS

// The errnos with which the guest's device manager answers, negative as on the wire. Values: Linux, include/uapi/asm-generic/errno-base.h.

/** No such command: the type has no handler in this kernel. */
export const NO_COMMAND = -1
/** The vCPU did not come up. */
export const EIO = -5
/** The window is claimed by something else. */
export const EBUSY = -16
export const EEXIST = -17
export const ENODEV = -19
export const EINVAL = -22

// Linux errno names, as the guest's kernel numbers them on both architectures. The guest is Linux wherever the VMM runs, so the
// host's own table (os.constants.errno) would be wrong on other platforms. Source: include/uapi/asm-generic/errno*.h.
const first =
  `EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV
  ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG
  ENOLCK ENOSYS ENOTEMPTY ELOOP`.split(/\s+/)
const later = new Map([
  [61, 'ENODATA'],
  [62, 'ETIME'],
  [71, 'EPROTO'],
  [75, 'EOVERFLOW'],
  [95, 'EOPNOTSUPP'],
  [110, 'ETIMEDOUT'],
  [114, 'EALREADY'],
  [115, 'EINPROGRESS'],
  [125, 'ECANCELED'],
])

/** The name of a result that is not 0: `EINVAL` for −22. A positive result is not an errno and is named as it is: `+1`. */
export function errnoName(result: number): string {
  if (result > 0) return `+${result}`
  return first[-result - 1] ?? later.get(-result) ?? `E${-result}`
}

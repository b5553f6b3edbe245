import { checkObject, checkOneOf, integer } from '@upcall/foundation/check'
import { Cid, PORT_ANY } from '../address.js'

export interface NotifyCredentialOptions {
  /** The port that the host listens on. */
  port: number
  /** The host's CID as the guest dials it. Default 2; 3 is the parent of a Nitro enclave. */
  cid?: number | undefined
  /** The type of the host's socket. Default `stream`, which every VMM has. */
  type?: 'stream' | 'seqpacket' | undefined
}

/** The ways in which a VMM hands the credential `vmm.notify_socket` to a guest's systemd. */
export interface NotifyCredential {
  /** The credential itself, also a value of NOTIFY_SOCKET: `vsock-stream:2:9999`. */
  readonly value: string
  /** An SMBIOS OEM string: `io.systemd.credential:vmm.notify_socket=…`, for Cloud Hypervisor's `--platform oem_strings=[…]`. */
  readonly oemString: string
  /** Arguments of QEMU, for machines with SMBIOS: `-smbios type=11,value=…`. */
  readonly smbios: readonly string[]
  /** Arguments of QEMU, for any machine with fw_cfg: `-fw_cfg name=opt/io.systemd.credentials/vmm.notify_socket,string=…`. */
  readonly fwCfg: readonly string[]
  /** A word for the kernel's command line, for VMMs that have neither, such as Firecracker: `systemd.set_credential=…`. */
  readonly kernel: string
}

const NAME = 'vmm.notify_socket'

/**
 * What to tell a guest, so that its systemd (254 or later) says when it has booted. The type is always named: for a plain `vsock:` systemd
 * tries SOCK_DGRAM and SOCK_SEQPACKET, and does not go on to SOCK_STREAM when the connection is refused.
 *
 * (systemd.system-credentials(7), systemd-creds; systemd, src/libsystemd/sd-daemon/sd-daemon.c.)
 *
 * @throws {TypeError} or {RangeError} for an option that is wrong.
 */
export function notifyCredential(options: NotifyCredentialOptions): NotifyCredential {
  checkObject('options', options)
  const { port, cid = Cid.host, type = 'stream' } = options
  integer('port', port, { max: PORT_ANY - 1 })
  integer('cid', cid, { max: Cid.any - 1 })
  checkOneOf('type', type, ['stream', 'seqpacket'])
  const value = `vsock-${type}:${cid}:${port}`
  const oemString = `io.systemd.credential:${NAME}=${value}`
  return {
    ...{ value, oemString },
    smbios: ['-smbios', `type=11,value=${oemString}`],
    fwCfg: ['-fw_cfg', `name=opt/io.systemd.credentials/${NAME},string=${value}`],
    kernel: `systemd.set_credential=${NAME}:${value}`,
  }
}

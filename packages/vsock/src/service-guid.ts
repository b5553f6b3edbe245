import { AddressError, PORT_ANY } from './address.js'

// Linux, net/vmw_vsock/hyperv_transport.c: a template whose first 32 bits are the port.
const TEMPLATE = '-facb-11e6-bd58-64006a7986d3'

/**
 * The service GUID that a port has on Hyper-V, in lower case and without braces. A program on the Windows host connects to it, or registers it
 * for a guest to connect to: a key below `HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Virtualization\GuestCommunicationServices`.
 *
 * @throws {AddressError} for a port that is not an integer from 0 to 4294967294.
 */
export function serviceGuid(port: number): string {
  if (!Number.isInteger(port) || port < 0 || port >= PORT_ANY)
    throw new AddressError(`port ${String(port)}`, 'it has no service GUID', 'It is an integer from 0 to 4294967294.')
  return `${port.toString(16).padStart(8, '0')}${TEMPLATE}`
}

/** The port of a service GUID, in any case, with or without braces; undefined for a GUID that is not a port's. */
export function servicePort(guid: string): number | undefined {
  const [, open, digits, close] = /^(\{?)([0-9a-f]{8})-facb-11e6-bd58-64006a7986d3(\}?)$/i.exec(guid) ?? []
  if (digits === undefined || (open === '{') !== (close === '}')) return undefined
  const port = Number.parseInt(digits, 16)
  return port === PORT_ANY ? undefined : port
}

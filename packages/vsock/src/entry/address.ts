/**
 * Addresses as text and as values, without a module of Node: for browsers, too.
 *
 * @packageDocumentation
 */
export {
  type Address,
  AddressError,
  Cid,
  formatAddress,
  guestInitiatedPath,
  type HvsockAddress,
  hybridSeqpacketPath,
  isAddressError,
  type ParseAddressOptions,
  PORT_ANY,
  parseAddress,
  parseSeqpacketAddress,
  type SeqpacketAddress,
  UNIX_PATH_MAX,
  type UnixAddress,
  type VsockAddress,
} from '../address.js'
export { serviceGuid, servicePort } from '../service-guid.js'

// The packets of vhost-user devices of this process, as a capture: their diagnostics channel, without their package.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { TraceError } from '../error.js'
import { openPcap, type PcapFile } from './file.js'
import { type RingPacket, RingPackets } from './ring-packets.js'
import { encodeVsockPacket, type VsockOp } from './vsock-packet.js'

export interface CaptureDevicesOptions {
  /** The devices to capture, by the paths of their sockets. Default: all of this process. */
  socketPaths?: readonly string[] | undefined
  /** Writing has failed, and nothing more is captured. The devices go on. */
  onError?: ((error: TraceError) => void) | undefined
}

/** A capture under way. */
export interface DeviceCapture extends AsyncDisposable {
  /** Packets that were taken. */
  readonly packets: number
  /** Packets that were left out, because the disk was too slow or failed. */
  readonly dropped: number
  /** Resolves when everything is in the file. Idempotent. @throws TraceError `OUTPUT` if writing has failed. */
  close(): Promise<void>
}

/** What `upcall:vhost-user:packet` publishes; see TappedPacket of @upcall/vhost-user. */
interface TappedPacket {
  readonly socketPath: string
  readonly guestCid: number
  readonly time: number
  readonly direction: 'from-guest' | 'to-guest'
  readonly header: Uint8Array
  readonly payload: Uint8Array
}

type HeaderFields = Pick<RingPacket, 'source' | 'destination' | 'op'>

const CHANNEL = 'upcall:vhost-user:packet'

/**
 * Writes each packet that passes the rings of this process's vhost-user devices into a pcap file. A packet between two guests passes two
 * rings. It is in the file once, as its sender had it, if the sender's device is captured, too.
 *
 * @throws {TraceError} `OUTPUT` if the file cannot be opened.
 */
export async function captureDevices(path: string, { socketPaths, onError }: CaptureDevicesOptions = {}): Promise<DeviceCapture> {
  const file: PcapFile = await openPcap(path, { onError })
  const wanted = socketPaths && new Set(socketPaths)
  const rings = new RingPackets()
  const onPacket = (message: unknown) => {
    const { socketPath, guestCid, time, direction, header, payload } = message as TappedPacket
    if (wanted !== undefined && !wanted.has(socketPath)) return
    const fields = fieldsOf(header)
    if (rings.isNew({ guestCid, direction, ...fields })) file.write(time, captured(fields, header, payload))
  }
  subscribe(CHANNEL, onPacket)
  const close = () => {
    unsubscribe(CHANNEL, onPacket)
    return file.close()
  }
  return {
    get packets() {
      return file.packets
    },
    get dropped() {
      return file.dropped
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** Source: virtio 1.2, 5.10.6. */
function fieldsOf(virtio: Uint8Array): HeaderFields {
  const view = new DataView(virtio.buffer, virtio.byteOffset, virtio.byteLength)
  return {
    source: { cid: view.getBigUint64(0, true), port: view.getUint32(16, true) },
    destination: { cid: view.getBigUint64(8, true), port: view.getUint32(20, true) },
    op: view.getUint16(30, true),
  }
}

/** A packet of virtio-vsock as vsockmon has it. */
function captured({ source, destination, op }: HeaderFields, virtio: Uint8Array, payload: Uint8Array): Uint8Array {
  return encodeVsockPacket({ source, destination, op: opOf(op), virtio, payload })
}

/** As the kernel has it: virtio_transport_build_skb() in net/vmw_vsock/virtio_transport_common.c. */
function opOf(op: number): VsockOp {
  switch (op) {
    case 1: // REQUEST
    case 2: // RESPONSE
      return 'connect'
    case 3: // RST
    case 4: // SHUTDOWN
      return 'disconnect'
    case 5: // RW
      return 'payload'
    default: // CREDIT_UPDATE, CREDIT_REQUEST, and what a hostile guest makes up
      return 'control'
  }
}

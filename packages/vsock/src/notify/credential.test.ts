import { expect, it } from 'vitest'
import { serviceGuid, servicePort } from '../service-guid.js'
import { parseNotifySocket } from '../systemd/notify.js'
import { notifyCredential } from './credential.js'

it('says in each way where the host listens', () => {
  expect(notifyCredential({ port: 9999 })).toEqual({
    value: 'vsock-stream:2:9999',
    oemString: 'io.systemd.credential:vmm.notify_socket=vsock-stream:2:9999',
    smbios: ['-smbios', 'type=11,value=io.systemd.credential:vmm.notify_socket=vsock-stream:2:9999'],
    fwCfg: ['-fw_cfg', 'name=opt/io.systemd.credentials/vmm.notify_socket,string=vsock-stream:2:9999'],
    kernel: 'systemd.set_credential=vmm.notify_socket:vsock-stream:2:9999',
  })
  expect(notifyCredential({ port: 1, cid: 3, type: 'seqpacket' }).value).toBe('vsock-seqpacket:3:1')
})

it('is a NOTIFY_SOCKET that notifySystemd takes', () => {
  const { value } = notifyCredential({ port: 9999 })
  expect(parseNotifySocket(value)).toEqual({
    kind: 'vsock',
    type: 'stream',
    address: { transport: 'vsock', cid: 2, port: 9999 },
  })
})

it.each([
  [{ port: -1 }, 'port: must be an integer from 0 to 4294967294, got -1'],
  [{ port: 0xffff_ffff }, 'port: must be an integer from 0 to 4294967294, got 4294967295'],
  [{ port: 1, cid: 0xffff_ffff }, 'cid: must be an integer from 0 to 4294967294, got 4294967295'],
  [{ port: 1, type: 'dgram' as never }, 'type: must be one of stream, seqpacket, got "dgram"'],
])('refuses %j', (options, message) => {
  expect(() => notifyCredential(options)).toThrow(message)
})

it('knows the service GUIDs of Hyper-V', () => {
  // The example of Microsoft's documentation for Linux guests.
  expect(serviceGuid(0x3049)).toBe('00003049-facb-11e6-bd58-64006a7986d3')
  for (const port of [0, 1, 9999, 0x8000_0000, 0xffff_fffe]) expect(servicePort(serviceGuid(port))).toBe(port)
  expect(servicePort('{00003049-FACB-11E6-BD58-64006A7986D3}')).toBe(0x3049)
})

it.each([-1, 1.5, 0xffff_ffff, Number.NaN])('gives port %d none', (port) => {
  expect(() => serviceGuid(port)).toThrow(`port ${port}: it has no service GUID. It is an integer from 0 to 4294967294.`)
})

it.each([
  '',
  '00003049-facb-11e6-bd58-64006a7986d4',
  '{00003049-facb-11e6-bd58-64006a7986d3',
  'ffffffff-facb-11e6-bd58-64006a7986d3',
  'x00003049-facb-11e6-bd58-64006a7986d3',
])('finds no port in %j', (guid) => {
  expect(servicePort(guid)).toBeUndefined()
})

// The last test: it unloads what makes AF_VSOCK, one module after the other.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { connect, listen, localCid } from '@upcall/vsock'
import { TIMEOUT, unload, vsockError } from './support.mjs'

test('without vsock_loopback: ENODEV, and the message names the module', TIMEOUT, async () => {
  await unload('vsock_loopback')
  await assert.rejects(connect('vsock://local:5000'), vsockError('ENODEV', 'ENODEV', { retryable: true, says: /vsock_loopback/ }))
})

test('without any transport: ENODEV', TIMEOUT, async () => {
  await unload('vmw_vsock_virtio_transport')
  await assert.rejects(connect('vsock://local:5000'), vsockError('ENODEV', 'ENODEV', { retryable: true }))
})

test('without the module vsock: ENOTSUP, and no /dev/vsock', TIMEOUT, async () => {
  await unload('vmw_vsock_virtio_transport_common')
  await unload('vsock')
  await assert.rejects(
    connect('vsock://local:5000'),
    vsockError('ENOTSUP', 'EAFNOSUPPORT', { retryable: false, says: /module vsock/ }),
  )
  await assert.rejects(listen('vsock://any:any'), vsockError('ENOTSUP', 'EAFNOSUPPORT', { op: 'listen', retryable: false }))
  assert.throws(() => localCid(), vsockError('ENOENT', 'ENOENT', { op: 'localCid', says: /Load the module vsock/ }))
})

// Rust: dbs-upcall as the client of `upcall serve`, vhost-device-vsock as the device of a QEMU guest, and the crate vsock in a guest.
import * as dbsUpcall from './rust/dbs-upcall.mjs'

export const tools = ['cargo', 'cc']

export async function run(checks, _image, options) {
  await dbsUpcall.run(checks, options)
}

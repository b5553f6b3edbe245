// Rust: dbs-upcall as the client of `upcall serve`, vhost-device-vsock as the device of a QEMU guest, and the crate vsock in a guest.
export const tools = ['cargo', 'cc', 'make', 'perl']

export async function run(_checks, _image, _options) {}

// Runs on the host: starts a QEMU, tells its process id, and never closes it.
import { bootGuest } from '@upcall/qemu'

const guest = await bootGuest({ kernel: process.argv[2], ready: false })
console.log(guest.pid)
setInterval(() => {}, 1000)

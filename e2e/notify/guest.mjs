import { join } from 'node:path'
import { startInGuest } from '@upcall/qemu'
import { makeSystemdDisk } from './root.mjs'

/** Where PID 1 tells of itself, and where programs of the guest do that name a type of socket in NOTIFY_SOCKET. */
export const PORTS = { systemd: 9999, stream: 9998, seqpacket: 9997, any: 9996, unprivileged: 9995 }
export const UNIT = 'default.target'
const BOOT_MS = 60_000

/** A boot as small as can be that is still one: basic.target, and a program that tells when systemd has said that it is ready. */
const FILES = {
  [`etc/systemd/system/${UNIT}`]: '[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=talk.service\n',
  'etc/systemd/system/talk.service': `[Service]
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
ExecStart=/usr/bin/talk
`,
  'usr/bin/talk': `#!/bin/sh
tell() {
  echo "talk: $2 $(NOTIFY_SOCKET=$1 systemd-notify --no-block "--status=$2" 2>&1 && echo told)"
}
grep -q talk=no /proc/cmdline && exit
systemctl is-system-running --wait
tell vsock-stream:2:${PORTS.stream} stream
tell vsock-seqpacket:2:${PORTS.seqpacket} seqpacket
tell vsock:2:${PORTS.any} any
su guest -s /bin/sh -c "NOTIFY_SOCKET=vsock-stream:2:${PORTS.unprivileged} systemd-notify --no-block --status=unprivileged"
systemctl poweroff
`,
}

export function systemdDisk(image, folder) {
  const disk = join(folder, 'systemd.ext4')
  // Beside the images, whose packages lie there as well.
  const cacheDir = join(image.root, '../..')
  return makeSystemdDisk({ cacheDir, disk, files: FILES }).then((version) => ({ disk, version }))
}

/** Boots that disk with the stock kernel of the image, whose initramfs loads the drivers and leaves the rest to systemd. */
export async function bootSystemd({ image, disk, socketPath, args = [], append, log }) {
  const { guest, close } = await startInGuest({
    ...{ image, command: ['true'], machine: 'q35', cpus: 1, memory: '512M', sharedMemory: true, args, append, log },
    early: `disk systemd || fail "no disk"
mount -t ext4 -o ro,noatime "$device" /sysroot || fail "cannot mount the disk"
for dir in dev proc sys; do mount --move "/$dir" "/sysroot/$dir"; done
echo 'upcall-init: ready'
exec switch_root /sysroot /usr/lib/systemd/systemd`,
    drives: [{ id: 'systemd', path: disk, readOnly: true }],
    chardevs: [`socket,id=vsock,path=${socketPath}`],
    devices: ['vhost-user-vsock-pci,chardev=vsock'],
    ...{ bootTimeoutMs: BOOT_MS, silenceTimeoutMs: 30_000, timeoutMs: Number.POSITIVE_INFINITY },
  })
  return { guest, close }
}

import type { GuestArch } from '../arch.js'

/** The virtio-serial port over which a guest's results come back. */
export const RESULTS_PORT = 'org.upcall.results'
/** virtio serials of the two disks. */
export const ROOT_DISK = 'root'
export const PAYLOAD_DISK = 'payload'
/** The console line that says that user space is up and the command starts. */
export const READY_LINE = 'upcall-init: ready'

/** Modules that the disks and the results need, and modules that AF_VSOCK needs. */
export const BOOT_MODULES = ['virtio_pci', 'virtio_mmio', 'virtio_blk', 'virtio_console']
export const VSOCK_MODULES = ['vsock_loopback', 'vmw_vsock_virtio_transport']
/** More modules that every image holds, for `modules` to name. */
export const SPARE_MODULES = ['vsock_diag', 'virtio_mem', 'virtio_balloon', 'virtio-rng', 'virtio_net', 'overlay']
/** The same, of one architecture: VMware's transport is in no cloud kernel for arm64. */
export const SPARE_MODULES_OF: Readonly<Record<GuestArch, readonly string[]>> = {
  x86_64: ['vmw_vsock_vmci_transport'],
  aarch64: [],
}

/**
 * The first process, in the initramfs: loads modules, finds the disks by their serials, goes over to the root disk. It leaves
 * /run/upcall for the second script. When this script ends, the kernel panics and QEMU ends.
 */
export const INIT = `#!/bin/sh
fail() {
  echo "upcall-init: $*"
  poweroff -f
}

disk() {
  tries=0
  while [ $tries -lt 100 ]; do
    for file in /sys/block/*/serial; do
      serial=
      [ -e "$file" ] && read -r serial <"$file"
      if [ "$serial" = "$1" ]; then
        name=\${file%/serial}
        device=/dev/\${name##*/}
        return 0
      fi
    done
    tries=$((tries + 1))
    sleep 0.05
  done
  return 1
}

mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do
  insmod "/lib/modules/$module.ko" || fail "cannot load kernel module $module"
done </etc/upcall/modules
. /etc/upcall/config
. /etc/upcall/early

disk ${ROOT_DISK} || fail "no disk with the serial ${ROOT_DISK}"
mount -t ext4 -o ro,noatime "$device" /sysroot || fail "cannot mount the root disk"
mount -t tmpfs run /sysroot/run
cp -r /etc/upcall /sysroot/run/upcall
if [ "$payload" = yes ]; then
  disk ${PAYLOAD_DISK} || fail "no disk with the serial ${PAYLOAD_DISK}"
  mount -t ext4 -o ro,noatime "$device" /sysroot/payload || fail "cannot mount the payload disk"
fi
mount -t tmpfs tmp /sysroot/tmp
for dir in dev proc sys; do mount --move "/$dir" "/sysroot/$dir"; done
exec switch_root /sysroot /bin/sh /run/upcall/start
`

/**
 * The second script, on the root disk: runs the command with its stdout on the results port and its stderr on the console, then
 * says how it ended and powers off. Through a fifo, because one write to the port takes 32 KiB at most and programs that write to what
 * looks like a file ignore a short write; the last word goes the same way, so it comes after all that the command wrote.
 */
export const START = `#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
. /run/upcall/config
mkdir -p /dev/pts /dev/shm /dev/virtio-ports
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
ifconfig lo 127.0.0.1 up
hostname guest

# The host tells a port's name some time after the port is there.
for wanted in $ports; do
  tries=0
  while [ ! -e "/dev/virtio-ports/$wanted" ]; do
    for port in /sys/class/virtio-ports/*; do
      name=
      [ -e "$port/name" ] && read -r name <"$port/name"
      [ "$name" = "$wanted" ] && ln -s "../\${port##*/}" "/dev/virtio-ports/$name"
    done
    [ -e "/dev/virtio-ports/$wanted" ] && break
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then
      echo "upcall-init: no virtio port $wanted"
      poweroff -f
    fi
    sleep 0.05
  done
done

# Both ends are open before anything is started: neither the command nor the reader can come too late.
mkfifo /run/upcall/out
exec 3<>/run/upcall/out 4>/run/upcall/out 5</run/upcall/out 3<&-
cat <&5 >/dev/virtio-ports/${RESULTS_PORT} 4>&- &
exec 5<&-
echo '${READY_LINE}'
(
  exec </dev/null >&4 4>&-
  . /run/upcall/command
)
status=$?
sync
printf '\\n%s exit %s\\n' "$token" "$status" >&4
exec 4>&-
wait
poweroff -f
`

/** What one boot adds to the image's initramfs: small shell files under /etc/upcall. */
export interface Start {
  modules: readonly string[]
  command: readonly string[]
  cwd: string
  env: Readonly<Record<string, string>>
  /** Stands in front of what the guest says about the command, so that the command's own output cannot be taken for it. */
  token: string
  ports: readonly string[]
  payload: boolean
  early: string
}

/** Files by name: `modules`, `config`, `early`, `command`. */
export function startFiles({ modules, command, cwd, env, token, ports, payload, early }: Start): Record<string, string> {
  const exports = Object.entries(env).map(([name, value]) => `export ${name}=${quote(value)}`)
  return {
    modules: modules.map((module) => `${module}\n`).join(''),
    config: `token=${token}\npayload=${payload ? 'yes' : 'no'}\nports=${quote(ports.join(' '))}\n`,
    early: `${early}\n`,
    command: [`cd ${quote(cwd)} || exit 127`, ...exports, `exec ${command.map(quote).join(' ')}`, ''].join('\n'),
  }
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { findQemu } from '@upcall/qemu'

const DRIVER = 'virtio,mmio\0'
const NO_DRIVER = 'virtio,none\0'

/**
 * QEMU's own device tree for a `virt`, in `file`, with virtio-mmio windows that no driver finds in it: the guest is to be told of them later.
 * `machine` is what the tree depends on, `hidden` the windows' addresses. Adds the argument that makes QEMU take it.
 */
export function hideWindows({ file, hidden, machine: { cpus, memory } }) {
  const options = ['-smp', `cpus=${cpus}`, '-m', `size=${memory}`, '-cpu', 'max', '-display', 'none', '-nodefaults']
  execFileSync(findQemu('qemu-system-aarch64'), ['-machine', `virt,dumpdtb=${file}`, ...options], {
    timeout: 30_000,
    stdio: 'ignore',
  })
  const tree = readFileSync(file)
  for (const address of hidden) {
    const name = `virtio_mmio@${address.toString(16)}\0`
    const at = tree.indexOf(DRIVER, tree.indexOf(name))
    const next = tree.indexOf('virtio_mmio@', tree.indexOf(name) + name.length)
    if (!tree.includes(name) || at < 0 || (next > 0 && at > next)) throw new Error(`the device tree has no window ${name}`)
    tree.write(NO_DRIVER, at, 'latin1')
  }
  writeFileSync(file, packed(tree))
  return ['-dtb', file]
}

/** Without the room at the end: QEMU doubles a tree's size, and Linux passes over one of more than 2 MiB without a word. */
function packed(tree) {
  // Offsets and sizes of the two blocks, as the Devicetree Specification has the header.
  const [structAt, stringsAt, stringsSize, structSize] = [8, 12, 32, 36].map((field) => tree.readUInt32BE(field))
  const size = Math.max(structAt + structSize, stringsAt + stringsSize)
  tree.writeUInt32BE(size, 4)
  return tree.subarray(0, size)
}

// What tools of the system print is all that they say about a failure. It is read here and nowhere else.

/** ldd: the program is linked to nothing, which is a failure to ldd. */
export function isStatic(output: string): boolean {
  return /not a dynamic executable|statically linked/.test(output)
}

/** mkfs.ext4: it does not know the option `-d`, which fills the disk. */
export function isTooOld(output: string): boolean {
  return /invalid option/.test(output)
}

import { wrongValue } from '@upcall/foundation/check'
import type { Arch } from '@upcall/wire'

/** @throws RangeError */
export function checkArch(arch: unknown): asserts arch is Arch {
  if (arch !== 'x86_64' && arch !== 'aarch64') wrongValue('arch', "'x86_64' or 'aarch64'", arch)
}

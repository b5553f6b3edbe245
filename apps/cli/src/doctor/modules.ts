import type { System } from './system.js'

export type ModuleState = 'loaded' | 'built in' | 'available' | 'missing'

type Files = Pick<System, 'kernel' | 'read' | 'exists'>

/** Whether this process can see what modules the kernel has. In many containers it cannot. */
export async function modulesVisible(system: Files): Promise<boolean> {
  return (await system.read('/proc/modules')) !== undefined || (await system.exists(folderOf(system)))
}

/** @param name - As `lsmod` shows it, with `_`. */
export async function moduleState(system: Files, name: string): Promise<ModuleState> {
  const loaded = await system.read('/proc/modules')
  if (loaded?.split('\n').some((line) => line.startsWith(`${name} `))) return 'loaded'
  const folder = folderOf(system)
  // A module that is built in has a folder here only if it has parameters.
  if ((await lists(system, `${folder}/modules.builtin`, name)) || (await system.exists(`/sys/module/${name}`))) return 'built in'
  return (await lists(system, `${folder}/modules.dep`, name)) ? 'available' : 'missing'
}

/** Lines are `kernel/net/vmw_vsock/vsock.ko.xz: …`; the name of a file may have `-` for `_`. */
async function lists(system: Files, path: string, name: string): Promise<boolean> {
  const text = await system.read(path)
  const files = text
    ?.split('\n')
    .map((line) => line.split(':', 1)[0]?.split('/').at(-1)?.split('.ko', 1)[0]?.replaceAll('-', '_'))
  return files?.includes(name) === true
}

const folderOf = ({ kernel }: Files) => `/lib/modules/${kernel}`

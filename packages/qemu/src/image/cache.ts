import { rename, rm } from 'node:fs/promises'

/**
 * Moves a new folder to its place. A whole folder that is there already stays: another process made the same meanwhile. The rest of a folder
 * that was being deleted is replaced.
 */
export async function place(made: string, path: string, isWhole: () => Promise<boolean>): Promise<void> {
  try {
    await rename(made, path)
  } catch {
    if (await isWhole()) return
    await rm(path, { recursive: true, force: true })
    await rename(made, path)
  }
}

/** Deletes a folder that other processes look for, if it is still there. They never find a part of it. */
export async function discard(path: string, under: string): Promise<void> {
  await rm(under, { recursive: true, force: true })
  await rename(path, under).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  await rm(under, { recursive: true, force: true })
}

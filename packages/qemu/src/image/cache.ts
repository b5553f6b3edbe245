import { rename, rm } from 'node:fs/promises'

/**
 * Puts a folder that was made where it is looked for. What is there already stays if it is whole: somebody else has made the same meanwhile.
 * What is left of a folder that was being deleted is replaced.
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

/** Deletes a folder that others look for, if it is still there: at no moment do they find a part of it. */
export async function discard(path: string, under: string): Promise<void> {
  await rm(under, { recursive: true, force: true })
  await rename(path, under).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  await rm(under, { recursive: true, force: true })
}

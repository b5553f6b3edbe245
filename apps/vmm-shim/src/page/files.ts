// The page as it was built: a few files, read once.

import { readdirSync, readFileSync } from 'node:fs'
import { join, relative, sep } from 'node:path'
import { errnoOf, FieldError } from '@upcall/foundation/error'

export interface PageFile {
  readonly type: string
  readonly body: Buffer
  /** Its name changes with its content, so that a browser may keep it. */
  readonly isHashed: boolean
}

/** The page was not built. */
export class PageMissingError extends FieldError<'PAGE'> {
  override readonly name = 'PageMissingError'

  constructor(directory: string, cause: unknown) {
    super({ code: 'PAGE', op: '--ui', subject: directory, what: 'the page is not built', next: 'Run "npm run build".', cause })
  }
}

const TYPES: Readonly<Record<string, string>> = {
  css: 'text/css; charset=utf-8',
  html: 'text/html; charset=utf-8',
  ico: 'image/x-icon',
  js: 'text/javascript; charset=utf-8',
  json: 'application/json; charset=utf-8',
  png: 'image/png',
  svg: 'image/svg+xml',
  txt: 'text/plain; charset=utf-8',
  woff2: 'font/woff2',
}

/** The files below a directory by their path in a URL. No path of a request is ever looked up on the disk. @throws PageMissingError. */
export function readPage(directory: string): ReadonlyMap<string, PageFile> {
  const files = new Map<string, PageFile>()
  try {
    for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const path = join(entry.parentPath, entry.name)
      const name = relative(directory, path).split(sep).join('/')
      const type = TYPES[name.slice(name.lastIndexOf('.') + 1)] ?? 'application/octet-stream'
      files.set(name, { type, body: readFileSync(path), isHashed: name.startsWith('assets/') })
    }
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
    throw new PageMissingError(directory, error)
  }
  if (!files.has('index.html')) throw new PageMissingError(directory, undefined)
  return files
}

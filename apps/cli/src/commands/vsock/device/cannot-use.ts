import { errnoOf, fieldsOf, messageOf, textOf } from '@upcall/foundation/error'
import type { Given } from './settings.js'

/** What cannot be opened as it was written is the user's to change. Anything else is a mistake of upcall. */
export function cannotUse<Key extends string>(given: Given<Key>, key: Key): (error: unknown) => never {
  return (error): never => {
    const fields = fieldsOf(error)
    const errno = errnoOf(error)
    if (fields === undefined && errno === 'UNKNOWN') throw error
    if (fields === undefined && errno === 'ENOENT')
      throw given.error(key, 'cannot be used: its directory does not exist (ENOENT)', 'Create it first.')
    const { op, subject = '', next } = fields ?? {}
    throw given.error(key, `cannot be used: ${messageOf({ op, subject, what: textOf(error) })}`, next, error)
  }
}

import { UsageError } from '../../../errors.js'
import { meantOr } from '../../../suggest.js'
import { KEY_LIST, KEY_NAMES, type KeyName, keyNamed } from './keys.js'
import type { Given } from './settings.js'

/** `guest-cid=3,socket=/tmp/vhost3.socket,…`: one device of --vm. @throws UsageError */
export function parseVm(text: string): Given {
  const texts = new Map<KeyName, string>()
  const source = `--vm ${JSON.stringify(text)}`
  for (const pair of text.trim().split(',')) {
    const [, written = '', value] = /^([^=]*)=(.*)$/s.exec(pair) ?? []
    if (value === undefined)
      throw new UsageError(source, `${JSON.stringify(pair)} is not key=value`, 'Write pairs, as in guest-cid=3,socket=/tmp/vm.')
    const key = keyNamed(written)
    if (key === undefined)
      throw new UsageError(source, `there is no key ${JSON.stringify(written)}`, meantOr(written, KEY_NAMES, KEY_LIST))
    if (texts.has(key)) throw new UsageError(source, `${key} is there twice`)
    texts.set(key, value)
  }
  return {
    texts,
    nameOf: (key) => key,
    error: (key, what, next, cause) => new UsageError(source, key === undefined ? what : `${key} ${what}`, next, cause),
  }
}

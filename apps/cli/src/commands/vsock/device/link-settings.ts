import { LINK_KEYS, type LinkKeyName } from './keys.js'
import { type Given, valueIn } from './settings.js'

/** How this process is linked to others. */
export interface LinkSettings {
  /** The Unix socket of the process that this one dials. */
  readonly dial: string | undefined
  /** The Unix socket where others dial this one. */
  readonly listen: { readonly path: string; readonly mode: number | undefined } | undefined
}

/** The links, and where they were written. */
export interface DescribedLinks {
  readonly given: Given<LinkKeyName>
  readonly settings: LinkSettings
}

/** @throws UsageError for a value that means nothing, and for keys that do not go together. */
export function linksOf(given: Given<LinkKeyName>): DescribedLinks {
  const dial = valueIn(given, 'link', LINK_KEYS.link.parse)
  const path = valueIn(given, 'link-listen', LINK_KEYS['link-listen'].parse)
  const mode = valueIn(given, 'mode', LINK_KEYS.mode.parse)
  const listening = given.nameOf('link-listen')
  if (mode !== undefined && path === undefined) throw given.error('mode', `needs ${listening}`)
  if (dial !== undefined && dial === path)
    throw given.error('link', `has the path of ${listening}`, 'It is for the socket of another process.')
  return { given, settings: { dial, listen: path === undefined ? undefined : { path, mode } } }
}

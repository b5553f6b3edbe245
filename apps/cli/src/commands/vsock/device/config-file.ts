import { readFile } from 'node:fs/promises'
import { textOf } from '@upcall/foundation/error'
import type { Document, LineCounter, Node, ParsedNode } from 'yaml'
import { UsageError } from '../../../errors.js'
import { meantOr } from '../../../suggest.js'
import { KEY_LIST, KEY_NAMES, type KeyName, keyNamed, LINK_KEY_NAMES, type LinkKeyName, linkKeyNamed } from './keys.js'
import type { Given } from './settings.js'
import { SEPARATOR } from './values.js'

type Yaml = typeof import('yaml')

/** What a file says. */
export interface Config {
  readonly devices: readonly Given[]
  readonly links: Given<LinkKeyName>
}

const TOP_NEXT = 'The keys are vms, link, link_listen and mode.'
const NEXT = 'Write "vms:", and below it one "- guest_cid: …" for each device.'

/** What a file describes. @throws UsageError with the line and the column of what is wrong. */
export async function readConfig(path: string): Promise<Config> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    throw new UsageError('--config', textOf(error), 'Check the path and its permissions.', error)
  }
  return parseConfig(text, path, await import('yaml'))
}

/** A YAML text: `vms:` and a list of maps, and beside it the keys of the links. @throws UsageError */
export function parseConfig(text: string, path: string, yaml: Yaml): Config {
  const lines = new yaml.LineCounter()
  const document = yaml.parseDocument(text, { lineCounter: lines, prettyErrors: false })
  const [error] = document.errors
  if (error?.code === 'MULTIPLE_DOCS')
    throw new UsageError(
      at(path, lines, error.pos[0]),
      'the file has a second YAML document',
      'Put all devices below one "vms:".',
    )
  // reads the text of yaml
  if (error !== undefined) throw new UsageError(at(path, lines, error.pos[0]), `the file is not YAML: ${error.message}`)
  return new ConfigFile(path, yaml, document, lines).read()
}

function at(path: string, lines: LineCounter, offset: number): string {
  const { line, col } = lines.linePos(offset)
  return `${path}:${line}:${col}`
}

interface Pair {
  readonly name: string
  readonly key: Node
  readonly value: Node | null
}

/** The keys that a map may have. */
interface Keys<Key> {
  readonly named: (written: string) => Key | undefined
  readonly names: readonly string[]
  readonly wrong: string
  readonly next: string
}

/** The file has `_` where the options have `-`. */
const inFile = (names: readonly string[]) => names.map((name) => name.replaceAll('-', '_'))

class ConfigFile {
  readonly #path: string
  readonly #yaml: Yaml
  readonly #document: Document.Parsed
  readonly #lines: LineCounter

  constructor(path: string, yaml: Yaml, document: Document.Parsed, lines: LineCounter) {
    this.#path = path
    this.#yaml = yaml
    this.#document = document
    this.#lines = lines
  }

  read(): Config {
    const top = this.#document.contents
    const pairs = this.#pairs(top, '', NEXT)
    const vms = pairs.find(({ name }) => name === 'vms')
    const links = this.#given(
      top,
      '',
      pairs.filter((pair) => pair !== vms),
      { named: linkKeyNamed, names: ['vms', ...inFile(LINK_KEY_NAMES)], wrong: 'is not a key of the file', next: TOP_NEXT },
    )
    return { devices: this.#devices(top, vms?.value), links }
  }

  #devices(top: Node | null, list: Node | null | undefined): readonly Given[] {
    if (list === undefined) throw this.#wrong(top, '', 'vms is missing', NEXT)
    const resolved = this.#resolved(list, 'vms')
    if (!this.#yaml.isSeq<Node>(resolved) || resolved.items.length === 0)
      throw this.#wrong(resolved ?? top, 'vms', 'must be a list of devices', NEXT)
    return resolved.items.map((item, index) => this.#device(item, `vms[${index}]`))
  }

  #device(node: Node, name: string): Given {
    const keys = { named: keyNamed, names: inFile(KEY_NAMES), wrong: 'is not a key of a device', next: KEY_LIST }
    return this.#given<KeyName>(node, name, this.#pairs(node, name, NEXT), keys)
  }

  #given<Key extends string>(node: Node | null, name: string, pairs: readonly Pair[], keys: Keys<Key>): Given<Key> {
    const texts = new Map<Key, string>()
    const places = new Map<Key, { node: Node | null; name: string }>()
    for (const pair of pairs) {
      const key = keys.named(pair.name)
      const path = name === '' ? pair.name : `${name}.${pair.name}`
      if (key === undefined) throw this.#wrong(pair.key, path, keys.wrong, meantOr(pair.name, keys.names, keys.next))
      if (texts.has(key)) throw this.#wrong(pair.key, path, 'is there twice')
      texts.set(key, this.#text(pair.value, pair.key, path))
      places.set(key, { node: pair.value ?? pair.key, name: path })
    }
    return {
      texts,
      nameOf: (key) => key.replaceAll('-', '_'),
      error: (key, what, next, cause) => {
        const place = key === undefined ? undefined : places.get(key)
        return this.#wrong(place?.node ?? node, place?.name ?? name, what, next, cause)
      },
    }
  }

  #pairs(node: Node | null, name: string, next: string): Pair[] {
    const map = this.#resolved(node, name)
    if (!this.#yaml.isMap<Node, Node | null>(map)) throw this.#wrong(map, name, 'must be a map of keys and values', next)
    return map.items.map(({ key, value }) => {
      if (!this.#yaml.isScalar(key)) throw this.#wrong(key, name, 'has a key that is not a text')
      const written = String(key.value)
      return { name: written, key, value: this.#resolved(value, name === '' ? written : `${name}.${written}`) ?? null }
    })
  }

  /** A scalar, or a list of them, as the options have it. */
  #text(node: Node | null, key: Node, name: string): string {
    if (this.#yaml.isScalar(node)) {
      const { value } = node
      if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return String(value)
    } else if (this.#yaml.isSeq<Node>(node)) {
      return node.items
        .map((item, index) => {
          const part = `${name}[${index}]`
          const text = this.#text(this.#resolved(item, part) ?? null, key, part)
          if (text.includes(SEPARATOR)) throw this.#wrong(item, part, `must be one without ${SEPARATOR}`)
          return text
        })
        .join(SEPARATOR)
    }
    throw this.#wrong(node ?? key, name, 'must be a text, a number, true or false, or a list of them')
  }

  /** What an alias stands for, and any other node itself. */
  #resolved(node: Node | null | undefined, name: string): Node | null | undefined {
    if (!this.#yaml.isAlias(node)) return node
    const meant = node.resolve(this.#document)
    if (meant === undefined) throw this.#wrong(node, name, `refers to &${node.source}, which is not there`)
    return meant
  }

  #wrong(node: Node | null | undefined, name: string, what: string, next?: string, cause?: unknown): UsageError {
    const [offset] = (node as ParsedNode | null | undefined)?.range ?? [0]
    return new UsageError(at(this.#path, this.#lines, offset), name === '' ? what : `${name} ${what}`, next, cause)
  }
}

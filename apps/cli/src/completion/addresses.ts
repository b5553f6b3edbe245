import type { Dirent } from 'node:fs'
import { readdirSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Addresses, Candidate } from './engine.js'

/** What is in a folder; throws if it cannot be read. */
export type List = (folder: string) => Pick<Dirent, 'name' | 'isDirectory' | 'isSocket' | 'isSymbolicLink'>[]

const list: List = (folder) => readdirSync(folder, { withFileTypes: true })

/** A folder with more entries is cut off: the answer has to be quick. */
const MOST = 10_000

const hvsock = { value: 'hvsock://', description: "a port of a guest, by its VMM's Unix socket" }
const unix = { value: 'unix:', description: 'a Unix socket' }
const vsock = { value: 'vsock://', description: 'AF_VSOCK: a CID and a port' }
const tcp = { value: 'tcp:', description: 'a TCP port; loopback without a host' }
const cids = [
  ['local', 'this machine'],
  ['host', 'the host of this guest'],
] as const

/** Schemes, then folders and socket files, then the port. Nothing is connected to. */
export function addressesOn(read: List = list): Addresses {
  return ({ of, listens }, typed) => {
    const candidates = candidatesOf(typed)
    return { candidates, files: false, unfinished: candidates.some(({ value }) => /[:/]$/.test(value)) }

    function candidatesOf(typed: string): Candidate[] {
      const [, scheme, path] = /^((?:hvsock(?:\+seq)?:\/\/)|(?:unix(?:\+seq)?:))(.*)$/s.exec(typed) ?? []
      if (scheme !== undefined && path !== undefined) {
        const end = !scheme.startsWith('hvsock') ? '' : of === 'guest' ? ':219' : ':'
        return sockets(path, read).map(({ name, folder }) => ({
          value: `${scheme}${name}${folder ? '/' : end}`,
          description: folder ? 'folder' : 'socket',
        }))
      }
      const inherited = listens ? [{ value: 'systemd', description: 'the socket that systemd has opened' }] : []
      const schemes = [hvsock, unix, vsock, ...(of === 'stream' ? [tcp] : []), ...inherited]
      const names = [...cids, ...(listens ? [['any', 'every CID of this machine'] as const] : [])]
      const all = typed.startsWith('vsock://')
        ? names.map(([name, description]) => ({ value: `vsock://${name}:`, description }))
        : schemes
      return all.filter(({ value }) => value.startsWith(typed))
    }
  }
}

/** Folders and sockets whose path begins with `path`. */
function sockets(path: string, read: List): { name: string; folder: boolean }[] {
  const slash = path.lastIndexOf('/')
  const before = path.slice(0, slash + 1)
  const begun = path.slice(slash + 1)
  let entries: ReturnType<List>
  try {
    entries = read(before === '' ? '.' : dirname(`${before}x`)).slice(0, MOST)
  } catch {
    return []
  }
  return entries
    .filter((entry) => entry.isDirectory() || entry.isSocket() || entry.isSymbolicLink())
    .filter(({ name }) => name.startsWith(begun) && (begun !== '' || !name.startsWith('.')) && !/[\t\n]/.test(name))
    .map((entry) => ({ name: `${before}${entry.name}`, folder: !entry.isSocket() }))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
}

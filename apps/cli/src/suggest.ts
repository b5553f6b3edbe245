// "Did you mean …?": the names that a mistyped word may stand for.

/** The candidates that are nearest to the word, if they are near enough to be a typo of it; several if equally near. */
export function nearest(word: string, candidates: Iterable<string>): string[] {
  const typed = word.toLowerCase()
  let best: string[] = []
  let least = Number.POSITIVE_INFINITY
  for (const candidate of new Set(candidates)) {
    const limit = Math.min(3, Math.floor(Math.max(typed.length, candidate.length) * 0.4))
    // The rest of a long word cannot make it near, and comparing costs the product of both lengths.
    if (Math.abs(typed.length - candidate.length) > limit) continue
    const apart = distance(typed, candidate.toLowerCase())
    if (apart > limit || apart > least) continue
    if (apart < least) best = []
    least = apart
    best.push(candidate)
  }
  return best
}

/** `Did you mean "add"?`, or undefined without names. */
export function didYouMean(names: readonly string[]): string | undefined {
  if (names.length === 0) return undefined
  return `Did you mean ${names.map((name) => JSON.stringify(name)).join(' or ')}?`
}

/** What to do about a word that is not among the candidates: first the name that was probably meant, then `list`. */
export function meantOr(word: string, candidates: Iterable<string>, list: string): string {
  const near = nearest(word, candidates)
  // Of many that are equally near, none is what was meant: 6.13 is as near to 6.1 as to 6.12 and to 6.18.
  const meant = near.length > MOST_MEANT ? undefined : didYouMean(near)
  return meant === undefined ? list : `${meant} ${list}`
}

const MOST_MEANT = 2

const schemes = ['hvsock', 'unix', 'vsock', 'tcp', 'hvsock+seq', 'unix+seq', 'vsock+seq', 'systemd'] as const

/** `hvsok:///run/vm.sock` or `hvsock:/run/vm.sock` as it was probably meant; undefined where there is no such address. */
export function meantAddress(text: string, isAddress: (text: string) => boolean): string | undefined {
  const [, scheme, rest] = /^([a-z+]{2,12}):(.*)$/is.exec(text) ?? []
  if (scheme === undefined || rest === undefined) return undefined
  const place = rest.startsWith('//') ? rest.slice(2) : rest
  for (const name of nearest(scheme, schemes)) {
    const [kind] = name.split('+')
    const slashes = kind === 'hvsock' || kind === 'vsock' ? '//' : ''
    const bare = `${name}:${slashes}${kind === 'vsock' || kind === 'tcp' ? place.replace(/^\/+/, '') : place}`
    if (bare !== text && isAddress(bare)) return bare
  }
  return undefined
}

/** How many letters are to be changed, added, left out or swapped with their neighbour. */
function distance(a: string, b: string): number {
  let [before, last] = [[] as number[], Array.from({ length: b.length + 1 }, (_, i) => i)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const changed = last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? before[j - 2]! + 1 : changed
      row.push(Math.min(changed, last[j]! + 1, row[j - 1]! + 1, swapped))
    }
    ;[before, last] = [last, row]
  }
  return last[b.length]!
}

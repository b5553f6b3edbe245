// Places in a row, each with two lamps: the upper one is the VMM's belief, the lower one the guest's report.

import { type Cell, cellsInWords } from './machine-view.js'

/** From so many cells on, they are small and have no numbers. */
const MANY = 64

export function Cells({
  cells,
  what,
  format = String,
}: {
  cells: readonly Cell[]
  what: string
  format?: (id: number) => string
}) {
  const words = cellsInWords(cells, format)
  const text = words.map(({ label, ids }) => `${label}: ${ids}`).join('; ')
  const size = cells.length > MANY ? 'many' : what === 'slots' ? 'slots' : 'few'
  return (
    <div class="cells" data-size={size} role="img" aria-label={`${what}. ${text || 'All are free'}.`}>
      {cells.map(({ id, believed, guest, differs }) => (
        <span key={id} class="cell" data-differs={differs || undefined}>
          <Lamps believed={believed} guest={guest} />
          {size !== 'many' && <span class="number">{format(id)}</span>}
          {differs && <span class="mark">≠</span>}
        </span>
      ))}
    </div>
  )
}

export function Lamps({ believed, guest }: { believed: Cell['believed']; guest: boolean | undefined }) {
  return (
    <span class="lamps" aria-hidden="true">
      <span class="lamp" data-is={believed}>
        {believed === 'unknown' ? '?' : ''}
      </span>
      <span class="lamp" data-is={guest === undefined ? 'silent' : guest ? 'present' : 'free'} />
    </span>
  )
}

/** What the cells show, in words. */
export function CellWords({ cells, free, format }: { cells: readonly Cell[]; free: string; format?: (id: number) => string }) {
  const words = cellsInWords(cells, format)
  if (words.length === 0) return <p class="words">{free}</p>
  return (
    <p class="words">
      {words.map(({ label, ids }) => (
        <span key={label}>
          <b>{label}</b> {ids}
        </span>
      ))}
    </p>
  )
}

/** How to read the lamps. */
export function Legend() {
  return (
    <ul class="legend" aria-label="How to read the cells">
      <li>
        <Lamps believed="present" guest={true} /> both have it
      </li>
      <li>
        <Lamps believed="present" guest={false} /> the VMM alone
      </li>
      <li>
        <Lamps believed="free" guest={true} /> the guest alone
      </li>
      <li>
        <Lamps believed="unknown" guest={undefined} /> unknown
      </li>
      <li>
        <Lamps believed="spare" guest={false} /> spare
      </li>
      <li>
        <Lamps believed="free" guest={false} /> free
      </li>
    </ul>
  )
}

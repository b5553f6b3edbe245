// Devices, one a row, each with a button that removes it.

import type { ComponentChildren } from 'preact'
import { useLayoutEffect, useRef } from 'preact/hooks'
import { ActionButton, useAction } from './action.js'
import { ActionAnswer } from './answer.js'
import type { Answer } from './api.js'
import { Lamps } from './cells.js'
import type { Believed } from './machine-view.js'
import { Reconcile } from './reconcile.js'

export interface RowView {
  key: string
  /** The device's id; undefined if the VMM does not have it. */
  id: string | undefined
  /** The id, or else the address that the guest reports. */
  name: string
  believed: Believed
  guest: boolean | undefined
  status: string
  details: ComponentChildren
}

/** When a row goes that has the focus, the focus moves to the next row's button, or to `after`, which is there always. */
export function Rows({
  rows,
  remove,
  focusAfter,
  empty,
}: {
  rows: readonly RowView[]
  remove: (id: string) => Promise<Answer>
  focusAfter: () => HTMLElement | null
  empty: string
}) {
  const list = useRef<HTMLUListElement>(null)
  const focused = useRef<{ key: string; at: number } | undefined>(undefined)
  const keys = rows.map(({ key }) => key)
  useLayoutEffect(() => {
    const last = focused.current
    if (last === undefined || keys.includes(last.key)) return
    focused.current = undefined
    if (document.activeElement && document.activeElement !== document.body) return
    const buttons = [...(list.current?.querySelectorAll<HTMLButtonElement>('li button') ?? [])]
    const next = buttons[Math.min(last.at, buttons.length - 1)] ?? focusAfter()
    next?.focus()
  }, [keys.join(' ')])
  if (rows.length === 0) return <p class="hint">{empty}</p>
  return (
    <ul class="rows" ref={list}>
      {rows.map((row, at) => (
        <Row
          key={row.key}
          row={row}
          remove={remove}
          onFocusIn={() => {
            focused.current = { key: row.key, at }
          }}
          onFocusOut={({ relatedTarget }) => {
            // A row that is taken out loses its focus to no element.
            if (relatedTarget) focused.current = undefined
          }}
        />
      ))}
    </ul>
  )
}

function Row({
  row: { id, name, believed, guest, status, details },
  remove,
  ...events
}: {
  row: RowView
  remove: (id: string) => Promise<Answer>
  onFocusIn: () => void
  onFocusOut: (event: FocusEvent) => void
}) {
  const action = useAction()
  return (
    <li {...events}>
      <Lamps believed={believed} guest={guest} />
      <div class="device">
        <p>
          <b>{name}</b>{' '}
          <span class="status" data-status={status}>
            {status}
          </span>
        </p>
        <p class="details">{details}</p>
      </div>
      {id !== undefined && status === 'unknown' && <Reconcile quiet />}
      {id !== undefined && status !== 'unknown' && (
        <ActionButton
          action={action}
          quiet
          label={`Remove ${id}`}
          onPress={() =>
            void action.run(
              () => remove(id),
              () => `${id} is removed.`,
            )
          }
        >
          Remove
        </ActionButton>
      )}
      <ActionAnswer action={action} />
    </li>
  )
}

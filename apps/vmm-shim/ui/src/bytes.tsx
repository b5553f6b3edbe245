// The bytes of one message. A field lights up in the bytes and in the list together, by the pointer and by the keyboard.

import { type Signal, useSignal } from '@preact/signals'
import { useRef } from 'preact/hooks'
import type { FieldView, MessageView } from '../../src/page/events.js'
import { dump, place, type Row, type Segment } from './hex.js'
import { milliseconds } from './units.js'
import { sentence } from './verdict.js'

export function Bytes({ message }: { message: MessageView }) {
  const { direction, title, fields, length, rttMs, wrong } = message
  const lit = useSignal<number | undefined>(undefined)
  const { rows, zerosFrom } = dump(message)
  return (
    <div class="bytes">
      <h3>
        {title}{' '}
        <small>
          {direction === 'to-guest' ? 'to the guest' : 'from the guest'}, {length} bytes
          {rttMs !== undefined && `, after ${milliseconds(rttMs)}`}
        </small>
      </h3>
      {wrong && (
        <p class="wrong">
          <span aria-hidden="true">✕ </span>
          {sentence(wrong)}
        </p>
      )}
      <Dump rows={rows} fields={fields} lit={lit} />
      {zerosFrom !== undefined && (
        <p class="hint">
          All bytes from 0x{zerosFrom.toString(16).padStart(3, '0')} up to 0x{length.toString(16)} are zeros.
        </p>
      )}
      {fields.length > 0 && <p class="hint">Point at the bytes, or move from field to field with the arrow keys.</p>}
      <dl class="fields">
        {fields.map((field, at) => (
          // biome-ignore lint/a11y/noStaticElementInteractions: it only lights up; the keyboard does the same among the bytes.
          <div
            key={`${field.name} ${field.offset}`}
            data-lit={lit.value === at || undefined}
            onMouseEnter={() => {
              lit.value = at
            }}
            onMouseLeave={() => {
              lit.value = undefined
            }}
          >
            <dt>
              <code>{field.name}</code> <small>{place(field)}</small>
            </dt>
            <dd>
              <code class="value">{field.value}</code> {sentence(field.meaning)}
              {field.wrong && (
                <span class="wrong">
                  <span aria-hidden="true"> ✕ </span>
                  Wrong: {sentence(field.wrong)}
                </span>
              )}
            </dd>
          </div>
        ))}
      </dl>
    </div>
  )
}

const MOVES: Record<string, number> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }

function Dump({ rows, fields, lit }: { rows: readonly Row[]; fields: readonly FieldView[]; lit: Signal<number | undefined> }) {
  const box = useRef<HTMLDivElement>(null)
  /** One stop for the tab key; the arrow keys move within. */
  const stop = useSignal(0)
  const move = (event: KeyboardEvent) => {
    const last = fields.length - 1
    const to = event.key === 'Home' ? 0 : event.key === 'End' ? last : MOVES[event.key] && stop.value + MOVES[event.key]!
    if (to === undefined) return
    event.preventDefault()
    stop.value = Math.max(0, Math.min(last, to))
    box.current?.querySelector<HTMLElement>(`[data-begins="${stop.value}"]`)?.focus()
  }
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is for inputs.
    <div class="dump" role="group" aria-label="The bytes of the message, by field" ref={box} onKeyDown={move}>
      {rows.map(({ offset, segments }) => (
        <p key={offset}>
          <span class="offset" aria-hidden="true">
            {offset.toString(16).padStart(3, '0')}
          </span>
          {segments.map((segment, at) => (
            <Bits key={at} segment={segment} fields={fields} lit={lit} stop={stop} />
          ))}
        </p>
      ))}
    </div>
  )
}

function Bits({
  segment: { field: at, begins, bytes },
  fields,
  lit,
  stop,
}: {
  segment: Segment
  fields: readonly FieldView[]
  lit: Signal<number | undefined>
  stop: Signal<number>
}) {
  const text = bytes.join(' ')
  if (at === undefined) return <span class="bits">{text}</span>
  const { name, value, meaning, wrong } = fields[at]!
  const light = {
    'data-lit': lit.value === at || undefined,
    'data-wrong': wrong !== undefined || undefined,
    'data-odd': at % 2 === 1 || undefined,
    onMouseEnter: () => {
      lit.value = at
    },
    onMouseLeave: () => {
      lit.value = undefined
    },
  }
  // The rest of a field that goes on in the next row is seen, and is not a stop of its own.
  if (!begins)
    return (
      <span class="bits" aria-hidden="true" {...light}>
        {text}
      </span>
    )
  return (
    <span
      class="bits"
      role="img"
      aria-label={`${name}, ${place(fields[at]!)}: ${value}. ${sentence(meaning)}${wrong ? ` Wrong: ${sentence(wrong)}` : ''}`}
      tabIndex={stop.value === at ? 0 : -1}
      data-begins={at}
      onFocus={() => {
        stop.value = at
        lit.value = at
      }}
      onBlur={() => {
        lit.value = undefined
      }}
      {...light}
    >
      {text}
    </span>
  )
}

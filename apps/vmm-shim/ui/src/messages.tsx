// The conversation with the guest: the last messages, and the bytes of one of them, each explained.

import { type Signal, useComputed, useSignal } from '@preact/signals'
import type { MessageView } from '../../src/page/events.js'
import { Bytes } from './bytes.js'
import { messages } from './store.js'
import { clock, milliseconds } from './units.js'

export function MessagesPanel() {
  /** The message that was chosen; undefined follows the newest. */
  const chosen = useSignal<number | undefined>(undefined)
  const shown = useComputed(() => messages.value.find(({ seq }) => seq === chosen.value) ?? messages.value.at(-1))
  return (
    <section class="panel" aria-labelledby="messages-title">
      <h2 id="messages-title">
        Messages <small>{['none yet', 'one'][messages.value.length] ?? `the last ${messages.value.length}`}</small>
      </h2>
      {messages.value.length === 0 ? (
        <p class="hint">Each message between the VMM and the guest is listed here, with the meaning of its bytes.</p>
      ) : (
        <div class="messages">
          <div>
            <List chosen={chosen} shown={shown.value} />
            {chosen.value !== undefined && (
              <button
                type="button"
                class="quiet"
                onClick={() => {
                  chosen.value = undefined
                }}
              >
                Follow the newest
              </button>
            )}
          </div>
          {shown.value && <Bytes key={shown.value.seq} message={shown.value} />}
        </div>
      )}
    </section>
  )
}

/** Newest first, so that what happens now is in sight. */
function List({ chosen, shown }: { chosen: Signal<number | undefined>; shown: MessageView | undefined }) {
  return (
    <ul class="message-list" aria-label="Messages, the newest first">
      {[...messages.value].reverse().map((message) => (
        <li key={message.seq}>
          <button
            type="button"
            aria-pressed={message.seq === shown?.seq}
            onClick={() => {
              chosen.value = message.seq
            }}
          >
            <Title message={message} />
          </button>
        </li>
      ))}
    </ul>
  )
}

function Title({ message: { at, direction, title, rttMs, wrong } }: { message: MessageView }) {
  return (
    <>
      <time>{clock(at)}</time>
      <span class="way" data-way={direction}>
        <span aria-hidden="true">{direction === 'to-guest' ? '→' : '←'}</span>
        <span class="unseen">{direction === 'to-guest' ? 'to the guest: ' : 'from the guest: '}</span>
      </span>
      <span class="what">
        {title}
        {wrong && <span class="wrong"> ✕ wrong</span>}
      </span>
      {rttMs !== undefined && <span class="rtt">{milliseconds(rttMs)}</span>}
    </>
  )
}

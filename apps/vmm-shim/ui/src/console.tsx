// The guest's console. It follows the end, unless it was scrolled up.

import { useSignal } from '@preact/signals'
import { useLayoutEffect, useRef } from 'preact/hooks'
import { consoleText } from './store.js'

/** Pixels from the end that still count as the end. */
const NEAR = 24

export function ConsolePanel() {
  const box = useRef<HTMLPreElement>(null)
  const follows = useSignal(true)
  const text = consoleText.value
  useLayoutEffect(() => {
    const { current } = box
    if (current && follows.value) current.scrollTop = current.scrollHeight
  }, [text, follows.value])
  return (
    <section class="panel" aria-labelledby="console-title">
      <h2 id="console-title">
        Console of the guest <small>{follows.value ? 'follows the end' : 'held'}</small>
      </h2>
      {/* It is a log, and prints too much to be read aloud. */}
      <pre
        ref={box}
        class="console"
        role="log"
        aria-live="off"
        aria-labelledby="console-title"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: the keyboard scrolls it.
        tabIndex={0}
        onScroll={({ currentTarget: { scrollTop, scrollHeight, clientHeight } }) => {
          follows.value = scrollHeight - scrollTop - clientHeight < NEAR
        }}
      >
        {text === '' ? 'The console has printed nothing yet.' : text}
      </pre>
      {!follows.value && (
        <button
          type="button"
          class="quiet"
          onClick={() => {
            follows.value = true
            box.current?.focus()
          }}
        >
          Go to the end
        </button>
      )}
    </section>
  )
}

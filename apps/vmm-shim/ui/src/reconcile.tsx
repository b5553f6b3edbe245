// The way out of what is unknown: a button, wherever it is needed.

import { useLayoutEffect, useRef } from 'preact/hooks'
import { ActionButton, useAction } from './action.js'
import { api } from './api.js'
import { summary } from './verdict.js'

export function Reconcile({ quiet = false }: { quiet?: boolean }) {
  const action = useAction()
  const box = useRef<HTMLDivElement>(null)
  // The button goes with what it has settled, before its answer or after. The outcomes tell what it has found.
  useLayoutEffect(
    () => () => {
      if (!box.current?.contains(document.activeElement)) return
      requestAnimationFrame(() => document.getElementById('outcomes-title')?.focus())
    },
    [],
  )
  return (
    <div class="reconcile" ref={box}>
      <ActionButton
        action={action}
        quiet={quiet}
        onPress={() => void action.run(api.reconcile, (body) => (body ? summary(body) : 'Done.'))}
      >
        Reconcile
      </ActionButton>
      {action.pending.value && <p class="answer">The guest is asked what it has …</p>}
      {action.said.value && (
        <p class="answer" data-tone={action.said.value.tone}>
          <span class="sign" aria-hidden="true">
            {action.said.value.tone === 'done' ? '✓' : '✕'}
          </span>
          {action.said.value.text}
        </p>
      )}
    </div>
  )
}

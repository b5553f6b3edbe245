// What became of a change, in words beside the button that asked for it.

import type { Action } from './action.js'
import { Reconcile } from './reconcile.js'
import { outcomes } from './store.js'
import { unsettled } from './verdict.js'

const SIGNS = { done: '✓', refused: '✕', unknown: '?' }

/** What became of it, right where it was asked for. The live region of the page has said it. */
export function ActionAnswer({ action }: { action: Action }) {
  const said = action.said.value
  if (action.pending.value) return <p class="answer">Under way: the guest is asked …</p>
  if (said === undefined) return null
  return (
    <div class="answer" data-tone={said.tone}>
      <p>
        <span class="sign" aria-hidden="true">
          {SIGNS[said.tone]}
        </span>
        {said.text}
      </p>
      {said.tone === 'unknown' && unsettled(outcomes.value) && <Reconcile quiet />}
    </div>
  )
}

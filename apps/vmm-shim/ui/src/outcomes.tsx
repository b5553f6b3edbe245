// What was asked for, how it ended, and what to do.

import { useSignal } from '@preact/signals'
import type { OutcomeView } from '../../src/page/events.js'
import { Reconcile } from './reconcile.js'
import { busy, outcomes } from './store.js'
import { clock, milliseconds } from './units.js'
import { EXPLAINED, errnoText, sentence, summary, unsettled, verdictOf } from './verdict.js'

const SHOWN = 4
const SIGNS = { done: '✓', refused: '✕', 'not done': '–', unknown: '?' }

export function OutcomesPanel() {
  const all = useSignal(false)
  const newest = [...outcomes.value].reverse()
  const shown = all.value ? newest : newest.slice(0, SHOWN)
  const open = unsettled(outcomes.value)
  return (
    <section class="panel" aria-labelledby="outcomes-title">
      <h2 id="outcomes-title" tabIndex={-1}>
        Outcomes <small>{newest.length}</small>
      </h2>
      {busy.value.map((op) => (
        <p key={op} class="under-way">
          <span class="sign" aria-hidden="true">
            ◌
          </span>
          {op}: under way
        </p>
      ))}
      {newest.length === 0 && busy.value.length === 0 && (
        <p class="hint">What you or another client asks of the machine is listed here, with how it ended and what to do.</p>
      )}
      <ol class="outcomes">
        {shown.map((outcome) => (
          <Outcome key={outcome.seq} outcome={outcome} settle={outcome === open} />
        ))}
      </ol>
      {newest.length > SHOWN && (
        <button
          type="button"
          class="quiet"
          aria-expanded={all.value}
          onClick={() => {
            all.value = !all.value
          }}
        >
          {all.value ? `Show the last ${SHOWN}` : `Show all ${newest.length}`}
        </button>
      )}
    </section>
  )
}

function Outcome({ outcome, settle }: { outcome: OutcomeView; settle: boolean }) {
  const { op, at, durationMs, status, fault, reconciled } = outcome
  const verdict = verdictOf(outcome)
  const errno = fault && errnoText(fault)
  return (
    <li data-verdict={verdict}>
      <p class="head">
        <span class="sign" aria-hidden="true">
          {SIGNS[verdict]}
        </span>
        <b>{op}</b> <span class="verdict">{verdict}</span>
        {errno && <code class="errno">{errno}</code>}
      </p>
      {fault && (
        <>
          <p>{sentence(fault.what)}</p>
          {fault.next && <p>{fault.next}</p>}
          <p class="hint">{EXPLAINED[verdict]}</p>
          {settle && <Reconcile />}
        </>
      )}
      {reconciled && <p>{summary(reconciled)}</p>}
      <p class="meta">
        {clock(at)}, took {milliseconds(durationMs)}, status {status}
        {fault && (
          <>
            . More: <code>upcall explain {fault.code}</code>
          </>
        )}
      </p>
    </li>
  )
}

// A change that a button or a form asks for: under way, then answered, in words beside it.

import { type Signal, useSignal } from '@preact/signals'
import type { ComponentChildren } from 'preact'
import type { Answer } from './api.js'
import { busy, link, say } from './store.js'

export interface Said {
  tone: 'done' | 'refused' | 'unknown'
  text: string
}

export interface Action {
  pending: Signal<boolean>
  said: Signal<Said | undefined>
  /** Asks, unless something is under way already. `done` words a success. Resolves to whether it was one. */
  run<Body>(ask: () => Promise<Answer<Body>>, done: (body: Body | undefined) => string): Promise<boolean>
}

export function useAction(): Action {
  const pending = useSignal(false)
  const said = useSignal<Said | undefined>(undefined)
  const run: Action['run'] = async (ask, done) => {
    const refusal = whyNot(pending.value)
    if (refusal !== undefined) {
      said.value = { tone: 'refused', text: refusal }
      say(refusal)
      return false
    }
    pending.value = true
    said.value = undefined
    const answer = await ask()
    pending.value = false
    said.value = answer.ok
      ? { tone: 'done', text: done(answer.body) }
      : { tone: answer.outcome === 'indeterminate' ? 'unknown' : 'refused', text: answer.message }
    return answer.ok
  }
  return { pending, said, run }
}

/** Why nothing can be asked for now. */
function whyNot(pending: boolean): string | undefined {
  if (pending) return 'This is under way already.'
  if (link.value !== 'live') return 'There is no connection to vmm-shim. Nothing was asked.'
  if (busy.value.length > 0)
    return `Another change is under way (${busy.value[0]}). There is one at a time. Try again when it is done.`
  return undefined
}

/** It keeps the focus while it is busy, so it is not disabled but says that it is. */
export function ActionButton({
  action,
  submit = false,
  quiet = false,
  onPress,
  label,
  children,
}: {
  action: Action
  submit?: boolean
  quiet?: boolean
  onPress?: () => void
  label?: string
  children: ComponentChildren
}) {
  const waits = action.pending.value
  return (
    <button
      type={submit ? 'submit' : 'button'}
      class={quiet ? 'quiet' : undefined}
      aria-disabled={waits || busy.value.length > 0 || link.value !== 'live' ? 'true' : undefined}
      aria-label={label}
      data-waits={waits || undefined}
      onClick={onPress}
    >
      {children}
    </button>
  )
}

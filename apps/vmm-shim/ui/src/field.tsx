// One input with its label, a hint, and what is wrong with what was typed.

import { type Signal, useSignal } from '@preact/signals'
import type { RefObject } from 'preact'
import { useId, useRef } from 'preact/hooks'

export interface Typed {
  text: Signal<string>
  wrong: Signal<string | undefined>
  input: RefObject<HTMLInputElement | null>
}

export function useTyped(initial = ''): Typed {
  return { text: useSignal(initial), wrong: useSignal<string | undefined>(undefined), input: useRef<HTMLInputElement>(null) }
}

/** Says of each what is wrong, if anything is, and moves the focus to the first. Returns whether all are right. */
export function allRight(checks: readonly (readonly [Typed, string | undefined])[]): boolean {
  for (const [typed, wrong] of checks) typed.wrong.value = wrong
  const first = checks.find(([, wrong]) => wrong !== undefined)
  first?.[0].input.current?.focus()
  return first === undefined
}

export function Field({
  typed,
  label,
  hint,
  value = typed.text.value,
  numeric = false,
  optional = false,
  narrow = false,
}: {
  typed: Typed
  label: string
  hint?: string
  value?: string
  numeric?: boolean
  optional?: boolean
  narrow?: boolean
}) {
  const id = useId()
  const { text, wrong, input } = typed
  const described = [hint && `${id}-hint`, wrong.value && `${id}-wrong`].filter(Boolean).join(' ')
  return (
    <div class={narrow ? 'field narrow' : 'field'}>
      <label for={id}>
        {label}
        {optional && <small> (optional)</small>}
      </label>
      <input
        id={id}
        ref={input}
        type="text"
        autocomplete="off"
        autocapitalize="off"
        spellcheck={false}
        inputMode={numeric ? 'numeric' : undefined}
        value={value}
        aria-invalid={wrong.value ? 'true' : undefined}
        aria-describedby={described || undefined}
        onInput={({ currentTarget }) => {
          text.value = currentTarget.value
          wrong.value = undefined
        }}
      />
      {hint && (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      {wrong.value && (
        <p class="wrong" id={`${id}-wrong`}>
          <span aria-hidden="true">✕ </span>
          {wrong.value}
        </p>
      )}
    </div>
  )
}

export function Check({ checked, label }: { checked: Signal<boolean>; label: string }) {
  return (
    <label class="check">
      <input
        type="checkbox"
        checked={checked.value}
        onChange={({ currentTarget }) => {
          checked.value = currentTarget.checked
        }}
      />
      {label}
    </label>
  )
}

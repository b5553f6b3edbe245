// A form that asks for one change: inputs with their labels, hints and what is wrong with what was typed, and the answer below.

import { type Signal, useSignal } from '@preact/signals'
import type { ComponentChildren, RefObject } from 'preact'
import { useId, useRef } from 'preact/hooks'
import type { Action } from './action.js'
import { ActionAnswer } from './answer.js'

export interface Typed {
  text: Signal<string>
  touched: Signal<boolean>
  wrong: Signal<string | undefined>
  input: RefObject<HTMLInputElement | null>
}

export function useTyped(): Typed {
  const [text, touched, wrong] = [useSignal(''), useSignal(false), useSignal<string | undefined>(undefined)]
  return { text, touched, wrong, input: useRef<HTMLInputElement>(null) }
}

/** Says of each what is wrong, if anything is, and moves the focus to the first. Returns whether all are right. */
export function allRight(checks: readonly (readonly [Typed, string | undefined])[]): boolean {
  for (const [typed, wrong] of checks) typed.wrong.value = wrong
  const first = checks.find(([, wrong]) => wrong !== undefined)
  first?.[0].input.current?.focus()
  return first === undefined
}

export function Form({
  label,
  action,
  submit,
  children,
}: {
  label: string
  action: Action
  submit: () => Promise<void>
  children: ComponentChildren
}) {
  return (
    <form
      noValidate
      aria-label={label}
      onInput={() => {
        // That something was done is old news once the next thing is typed. Why it was refused is not.
        if (action.said.value?.tone === 'done') action.said.value = undefined
      }}
      onSubmit={(event) => {
        event.preventDefault()
        void submit()
      }}
    >
      <div class="line">{children}</div>
      <ActionAnswer action={action} />
    </form>
  )
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
          typed.touched.value = true
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

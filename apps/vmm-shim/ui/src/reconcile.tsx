// The way out of what is unknown: a button, wherever it is needed.

import { type Action, ActionButton, useAction } from './action.js'
import { api, type Reconciled } from './api.js'
import { difference } from './machine-view.js'
import { reconciled, say } from './store.js'

export function Reconcile({ quiet = false }: { quiet?: boolean }) {
  const action = useAction()
  return (
    <div class="reconcile">
      <ActionButton action={action} quiet={quiet} onPress={() => void reconcile(action)}>
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

async function reconcile(action: Action): Promise<void> {
  const ok = await action.run(api.reconcile, (body) => (body ? summary(body) : 'Done.'))
  if (!ok) return
  // The button may be gone with what it has settled. What it has found is shown with the outcomes.
  reconciled.value = action.said.value?.text
  say(`Reconciled. ${reconciled.value}`)
  requestAnimationFrame(() => {
    if (document.activeElement === null || document.activeElement === document.body)
      document.getElementById('outcomes-title')?.focus()
  })
}

const NAMES = { cpu: 'vCPU', mmio: 'drive', pci: 'PCI device' }

/** What a reconcile has found, in sentences. */
export function summary({ restarted, settled, differences }: Reconciled): string {
  const sentences = settled.map(({ kind, id, now }) => `The ${NAMES[kind]} ${id} is ${now}.`)
  if (restarted) sentences.unshift('A new guest was started.')
  if (settled.length === 0) sentences.push('Nothing was unknown.')
  sentences.push(
    differences.length === 0 ? 'The VMM and the guest agree.' : `They differ: ${differences.map(difference).join('; ')}.`,
  )
  return sentences.join(' ')
}

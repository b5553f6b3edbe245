// What became of a change, in words that a newcomer understands. Pure.

import type { Reconciled } from '@upcall/vmm'
import type { OutcomeView } from '../../src/page/events.js'
import { difference } from './machine-view.js'

export type Verdict = 'done' | 'refused' | 'not done' | 'unknown'

/** Done, refused by the guest, not done at all, or unknown: the four ends that a change has. */
export function verdictOf({ status, fault }: Pick<OutcomeView, 'status' | 'fault'>): Verdict {
  if (!fault) return status < 400 ? 'done' : 'not done'
  if (fault.outcome === 'guest-error') return 'refused'
  return fault.outcome === 'indeterminate' ? 'unknown' : 'not done'
}

export const EXPLAINED: Record<Verdict, string> = {
  done: 'The guest did it.',
  refused: 'The guest was asked and refused. Everything is as it was before.',
  'not done': 'The guest was not asked. Nothing was changed.',
  unknown: 'The guest was asked and did not answer. It may have done it, or may do it yet.',
}

/** `-19 ENODEV`. */
export function errnoText({ errno, errnoName }: { errno: number | null; errnoName?: string }): string | undefined {
  if (errno === null) return undefined
  return errnoName === undefined ? String(errno).replace('-', '−') : `${String(errno).replace('-', '−')} ${errnoName}`
}

export function isReconcile({ op }: Pick<OutcomeView, 'op'>): boolean {
  return /reconcile/.test(op)
}

/** The newest outcome that a reconcile would settle, and that none has settled since. */
export function unsettled(outcomes: readonly OutcomeView[]): OutcomeView | undefined {
  const after = outcomes.findLastIndex((outcome) => isReconcile(outcome) && !outcome.fault) + 1
  return outcomes.slice(after).findLast(({ fault }) => fault?.reconcile)
}

/** What a live region says of it, once. */
export function announcement(outcome: OutcomeView): string {
  const { op, fault, reconciled } = outcome
  const verdict = verdictOf(outcome)
  if (!fault) return [`${op}: ${verdict}.`, reconciled && summary(reconciled)].filter(Boolean).join(' ')
  return `${op}: ${verdict}. ${advice(fault)}`
}

/** What went wrong, and what to do now. */
export function advice({ what, next }: Pick<NonNullable<OutcomeView['fault']>, 'what' | 'next'>): string {
  return [sentence(what), next].filter(Boolean).join(' ')
}

/** With a capital letter and a full stop. */
export function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1)
  return /[.!?]$/.test(begun) ? begun : `${begun}.`
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

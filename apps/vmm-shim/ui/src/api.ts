// The control API, as the page calls it.

import type { Reconciled } from '@upcall/vmm'
import type { FaultBody } from '../../src/api/fault.js'
import type { OutcomeView } from '../../src/page/events.js'
import { advice } from './verdict.js'

export type Answer<Body = unknown> =
  | { ok: true; body: Body | undefined }
  | { ok: false; message: string; outcome?: FaultBody['outcome'] }

export const api = {
  resize: (body: { desired_vcpus: number } | { desired_ram: number }) => call('PUT', 'vm/resize', body),
  addDrive: (id: string, body: { path_on_host: string; is_read_only: boolean }) =>
    call('PUT', `drives/${encodeURIComponent(id)}`, body),
  removeDrive: (id: string) => call('DELETE', `drives/${encodeURIComponent(id)}`),
  addPci: (id: string, body: { bdf?: string; path_on_host?: string; is_read_only?: boolean }) =>
    call('PUT', `pci-devices/${encodeURIComponent(id)}`, body),
  removePci: (id: string) => call('DELETE', `pci-devices/${encodeURIComponent(id)}`),
  reconcile: () => call<Reconciled>('POST', 'vm/reconcile'),
}

/** Never rejects: what went wrong is an answer. It takes as long as the guest does. */
async function call<Body>(method: string, path: string, body?: object): Promise<Answer<Body>> {
  try {
    const response = await fetch(`api/${path}`, {
      method,
      ...(body && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
    })
    const text = await response.text()
    const value: unknown = text === '' ? undefined : JSON.parse(text)
    if (response.ok) return { ok: true, body: value as Body | undefined }
    // As the server of the page words it.
    const fault = value as OutcomeView['fault']
    const message = fault?.what === undefined ? `vmm-shim answered with status ${response.status}.` : advice(fault)
    return { ok: false, message, ...(fault?.outcome && { outcome: fault.outcome }) }
  } catch {
    return {
      ok: false,
      message:
        'vmm-shim cannot be reached, so it is unknown what became of this. Look at the machine once the page is connected again.',
    }
  }
}

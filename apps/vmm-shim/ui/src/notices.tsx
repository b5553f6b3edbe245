// What is out of the ordinary, and what to do about it, above everything else.

import type { ComponentChildren } from 'preact'
import { difference, differences, unknowns } from './machine-view.js'
import { Reconcile } from './reconcile.js'
import { about, busy, link, lostAt, vm } from './store.js'
import { clock } from './units.js'

export function Notices() {
  return (
    <div class="notices">
      <LinkNotice />
      {vm.value && link.value === 'live' && <GuestNotice />}
      {vm.value && link.value === 'live' && <ReconcileNotice />}
    </div>
  )
}

function LinkNotice() {
  switch (link.value) {
    case 'live':
      return null
    case 'connecting':
      return <Notice title="Connecting to vmm-shim">The page shows the machine as soon as the program answers.</Notice>
    case 'lost':
      return (
        <Notice tone="fault" title="The connection to vmm-shim is lost">
          The page shows what it knew at {clock(lostAt.value ?? 0)}, and tries again by itself. If the program has ended, start it
          again, and open the address that it prints.
        </Notice>
      )
    case 'gone':
      return (
        <Notice tone="fault" title="vmm-shim does not answer at this address">
          The program has another address each time it starts. Open the address that it printed last. The page tries this one
          again by itself.
        </Notice>
      )
  }
}

function GuestNotice() {
  const { state, guest } = vm.value!
  if (state === 'dead')
    return (
      <Notice tone="fault" title="The guest is dead">
        It can be asked for nothing.{' '}
        {about.value?.guest === 'simulated'
          ? 'A reconcile starts a new guest on the same hardware.'
          : 'A reconcile starts it again.'}
        <Reconcile />
      </Notice>
    )
  if (state === 'booting')
    return (
      <Notice tone="attention" title="The guest boots">
        It takes no changes yet. A change that you ask for now ends with status 503, and changes nothing.
      </Notice>
    )
  if (state === 'paused' || guest?.paused)
    return (
      <Notice tone="attention" title="The guest is paused">
        Its vCPUs are stopped, so it answers nothing until they run again.
      </Notice>
    )
  if (guest?.crashed)
    return (
      <Notice tone="fault" title="The guest's device manager has crashed">
        One of its threads is dead, so some requests will never be answered. Only a new boot of the guest mends that.
      </Notice>
    )
  if (state === 'reconnecting')
    return (
      <Notice tone="attention" title="There is no connection to the guest at the moment">
        The client tries again by itself. The state machine below shows how far it is.
      </Notice>
    )
  return null
}

function ReconcileNotice() {
  // While a change is under way, the two sides differ for a moment.
  if (busy.value.length > 0 || vm.value!.state !== 'running') return null
  const unknown = unknowns(vm.value!)
  if (unknown > 0)
    return (
      <Notice
        tone="attention"
        title={unknown === 1 ? 'It is unknown what became of one change' : `It is unknown what became of ${unknown} changes`}
      >
        The guest was asked and did not answer in time. A reconcile asks the guest what it has, and settles it. Until then, what
        is unknown cannot be changed.
        <Reconcile />
      </Notice>
    )
  const found = differences(vm.value!)
  if (found.length === 0) return null
  return (
    <Notice tone="attention" title="The VMM and the guest differ">
      <ul class="plain">
        {found.slice(0, 5).map((each) => (
          <li key={`${each.kind} ${each.id}`}>{difference(each)}</li>
        ))}
        {found.length > 5 && <li>and {found.length - 5} more</li>}
      </ul>
      Another client may have asked the guest. A reconcile lists this, and does not change it.
    </Notice>
  )
}

function Notice({ tone, title, children }: { tone?: string; title: string; children: ComponentChildren }) {
  return (
    <section class="notice" data-tone={tone} aria-label={title}>
      <h2>
        <span class="sign" aria-hidden="true">
          {tone === 'fault' ? '✕' : tone === 'attention' ? '▲' : '◌'}
        </span>
        {title}
      </h2>
      <div>{children}</div>
    </section>
  )
}

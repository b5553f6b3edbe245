// Which program this is, and five numbers that say how it is.

import type { ComponentChildren } from 'preact'
import { about, link, messages, session, vm } from './store.js'
import { bytes, milliseconds } from './units.js'

const LINKS = {
  connecting: { sign: '◌', text: 'connecting' },
  live: { sign: '●', text: 'live' },
  lost: { sign: '✕', text: 'connection lost' },
  gone: { sign: '✕', text: 'connection lost' },
}

export function Header() {
  const { sign, text } = LINKS[link.value]
  const { guest, arch, address } = about.value ?? {}
  return (
    <header>
      <div class="title">
        <h1>vmm-shim</h1>
        {guest && (
          <p>
            {guest === 'qemu' ? 'a guest under QEMU' : 'a simulated guest'}, {arch}, reached at <code>{address}</code>
          </p>
        )}
        <p class="link" data-link={link.value}>
          <span aria-hidden="true">{sign}</span> {text}
        </p>
      </div>
      {vm.value && <Readouts />}
    </header>
  )
}

function Readouts() {
  const { state, believed } = vm.value!
  const last = messages.value.findLast(({ rttMs }) => rttMs !== undefined)?.rttMs
  return (
    <dl class="readouts">
      <Readout name="Guest" tone={TONES[state]}>
        {state}
      </Readout>
      <Readout name="Session" tone={session.value.kind === 'Failed' ? 'fault' : undefined}>
        {session.value.kind}
      </Readout>
      <Readout name="vCPUs">
        {believed.cpus.present.length} <small>of {believed.cpus.max}</small>
      </Readout>
      <Readout name="Memory">{bytes(believed.memory)}</Readout>
      <Readout name="Last round trip">{last === undefined ? <small>none yet</small> : milliseconds(last)}</Readout>
    </dl>
  )
}

const TONES: Record<string, string | undefined> = {
  dead: 'fault',
  booting: 'attention',
  paused: 'attention',
  reconnecting: 'attention',
}

function Readout({ name, tone, children }: { name: string; tone?: string | undefined; children: ComponentChildren }) {
  return (
    <div data-tone={tone}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  )
}

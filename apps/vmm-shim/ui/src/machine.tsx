// The machine: its vCPUs, memory, windows and PCI slots, each with what can be done about them.

import type { VmBody } from '../../src/api/view.js'
import { ActionButton, useAction } from './action.js'
import { api } from './api.js'
import { Cells, CellWords, Legend } from './cells.js'
import { DrivesPart } from './drives.js'
import { allRight, Field, Form, useTyped } from './field.js'
import { checkCpus, checkMemory } from './forms.js'
import { cpuCells } from './machine-view.js'
import { PciPart } from './pci.js'
import { about } from './store.js'
import { bytes, parseBytes } from './units.js'

export function MachinePanel({ vm }: { vm: VmBody }) {
  return (
    <section class="panel" id="machine" aria-labelledby="machine-title">
      <h2 id="machine-title">Machine</h2>
      <p class="lead">
        Each cell has two lamps. Above: what the VMM believes. Below: what the guest{' '}
        {vm.guest === null ? 'would report, if it could' : 'reports'}.
      </p>
      <Legend />
      <CpusPart vm={vm} />
      <MemoryPart vm={vm} />
      <DrivesPart vm={vm} />
      <PciPart vm={vm} />
    </section>
  )
}

function CpusPart({ vm }: { vm: VmBody }) {
  const cells = cpuCells(vm)
  const { present, max } = vm.believed.cpus
  const action = useAction()
  const typed = useTyped()
  // Until something is typed, it shows the number that there is.
  const value = typed.touched.value ? typed.text.value : String(present.length)
  const submit = async () => {
    const wrong = checkCpus(value, max)
    if (!allRight([[typed, wrong]])) return
    const desired = Number(value)
    if (
      await action.run(
        () => api.resize({ desired_vcpus: desired }),
        () => `The machine has ${desired} vCPU${desired === 1 ? '' : 's'}.`,
      )
    )
      typed.touched.value = false
  }
  return (
    <section class="part" aria-labelledby="cpus-title">
      <h3 id="cpus-title">
        vCPUs{' '}
        <small>
          {present.length} of {max}
        </small>
      </h3>
      <Cells cells={cells} what="vCPUs" />
      <CellWords cells={cells} free="There is no vCPU." />
      <Form label="Resize the vCPUs" action={action} submit={submit}>
        <Field typed={typed} value={value} label="Number of vCPUs" numeric narrow />
        <ActionButton action={action} submit>
          Resize
        </ActionButton>
      </Form>
    </section>
  )
}

function MemoryPart({ vm }: { vm: VmBody }) {
  const action = useAction()
  const typed = useTyped()
  const { memory } = vm.believed
  const limits = about.value?.memory
  if (limits === undefined) return null
  const submit = async () => {
    if (!allRight([[typed, checkMemory(typed.text.value, limits)]])) return
    const desired = parseBytes(typed.text.value)
    if (
      await action.run(
        () => api.resize({ desired_ram: desired }),
        () => `The guest has ${bytes(desired)}.`,
      )
    )
      typed.text.value = ''
  }
  return (
    <section class="part" aria-labelledby="memory-title">
      <h3 id="memory-title">
        Memory <small>{limits.max > limits.boot ? `${bytes(memory)} of ${bytes(limits.max)}` : bytes(memory)}</small>
      </h3>
      <MemoryBar believed={memory} guest={vm.guest?.memory} max={limits.max} />
      <p class="words">
        <span>
          <b>VMM</b> {bytes(memory)}
        </span>
        <span>
          <b>guest</b> {vm.guest?.memory === undefined ? 'does not say' : bytes(vm.guest.memory)}
        </span>
        <span>
          <b>at boot</b> {bytes(limits.boot)}
        </span>
      </p>
      {limits.max > limits.boot ? (
        <Form label="Resize the memory" action={action} submit={submit}>
          <Field typed={typed} label="Memory" hint={`${bytes(limits.boot)} to ${bytes(limits.max)}`} narrow />
          <ActionButton action={action} submit>
            Resize
          </ActionButton>
        </Form>
      ) : (
        <p class="hint">The memory of this guest does not change.</p>
      )}
    </section>
  )
}

/** Two bars, as the cells have two lamps. */
function MemoryBar({ believed, guest, max }: { believed: number; guest: number | undefined; max: number }) {
  const width = (count: number) => ({ inlineSize: `${Math.min(100, (count / max) * 100)}%` })
  return (
    <div class="bars" aria-hidden="true">
      <span class="bar" data-is="present" style={width(believed)} />
      <span class="bar" data-is={guest === undefined ? 'silent' : 'present'} style={width(guest ?? max)} />
    </div>
  )
}

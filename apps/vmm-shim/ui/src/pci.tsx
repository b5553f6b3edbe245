// The slots of PCI bus 0, and the devices on all buses.

import { useSignal } from '@preact/signals'
import { useRef } from 'preact/hooks'
import type { VmBody } from '../../src/api/view.js'
import { ActionButton, useAction } from './action.js'
import { api } from './api.js'
import { Cells, CellWords } from './cells.js'
import { allRight, Check, Field, Form, useTyped } from './field.js'
import { checkBdf, checkId, checkPath } from './forms.js'
import { slotCells } from './machine-view.js'
import { Rows, type RowView } from './rows.js'

const hexSlot = (slot: number) => slot.toString(16).padStart(2, '0')

export function PciPart({ vm }: { vm: VmBody }) {
  const heading = useRef<HTMLHeadingElement>(null)
  const cells = slotCells(vm)
  return (
    <section class="part" aria-labelledby="pci-title">
      <h3 id="pci-title" ref={heading} tabIndex={-1}>
        PCI devices <small>{vm.believed.pci.length}, slots of bus 0</small>
      </h3>
      <Cells cells={cells} what="slots" format={hexSlot} />
      <CellWords cells={cells} format={hexSlot} free="All slots are free." />
      <Rows rows={pciRows(vm)} remove={api.removePci} focusAfter={() => heading.current} empty="There is no PCI device." />
      <AddPci taken={vm.believed.pci.map(({ id }) => id)} />
    </section>
  )
}

function pciRows({ believed, guest }: VmBody): RowView[] {
  const known = believed.pci.map(({ id, bdf, path_on_host, is_read_only, status }): RowView => {
    const inGuest = guest?.pci.includes(bdf)
    return {
      key: id,
      id,
      name: id,
      believed: status === 'unknown' ? 'unknown' : 'present',
      guest: inGuest,
      status: status === 'present' && inGuest === false ? 'in the VMM alone' : status,
      details: (
        <>
          <code>{bdf}</code>, {path_on_host === undefined ? 'without a file' : <code class="path">{path_on_host}</code>}
          {is_read_only && ', read-only'}
        </>
      ),
    }
  })
  const foreign = (guest?.pci ?? []).filter((bdf) => !believed.pci.some((device) => device.bdf === bdf))
  return [
    ...known,
    ...foreign.map(
      (bdf): RowView => ({
        key: ` ${bdf}`,
        id: undefined,
        name: bdf,
        believed: believed.spares.pci.includes(bdf) ? 'spare' : 'free',
        guest: true,
        status: 'in the guest alone',
        details: 'not plugged in by the VMM',
      }),
    ),
  ]
}

function AddPci({ taken }: { taken: readonly string[] }) {
  const action = useAction()
  const [id, bdf, path] = [useTyped(), useTyped(), useTyped()]
  const readOnly = useSignal(false)
  const submit = async () => {
    const file = path.text.value
    const checks = [
      [id, checkId(id.text.value, taken)],
      [bdf, checkBdf(bdf.text.value)],
      [path, file === '' ? undefined : checkPath(file)],
    ] as const
    if (!allRight(checks)) return
    const added = id.text.value
    const body = {
      ...(bdf.text.value && { bdf: bdf.text.value }),
      ...(file && { path_on_host: file, is_read_only: readOnly.value }),
    }
    if (
      !(await action.run(
        () => api.addPci(added, body),
        () => `The PCI device ${added} is plugged in.`,
      ))
    )
      return
    id.text.value = bdf.text.value = path.text.value = ''
    readOnly.value = false
  }
  return (
    <Form label="Add a PCI device" action={action} submit={submit}>
      <Field typed={id} label="Id of the device" narrow />
      <Field typed={bdf} label="Address" hint="such as 00:05.0" optional narrow />
      <Field typed={path} label="File on this host" hint="makes it a disk" optional />
      {path.text.value !== '' && <Check checked={readOnly} label="read-only" />}
      <ActionButton action={action} submit>
        Add device
      </ActionButton>
    </Form>
  )
}

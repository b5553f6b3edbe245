// Virtio-mmio drives, and the windows that the guest has.

import { useSignal } from '@preact/signals'
import { useRef } from 'preact/hooks'
import type { VmBody } from '../../src/api/view.js'
import { ActionButton, useAction } from './action.js'
import { api } from './api.js'
import { allRight, Check, Field, Form, useTyped } from './field.js'
import { checkId, checkPath } from './forms.js'
import { sameWindow } from './machine-view.js'
import { Rows, type RowView } from './rows.js'
import { windowSize } from './units.js'

export function DrivesPart({ vm }: { vm: VmBody }) {
  const rows = driveRows(vm)
  const heading = useRef<HTMLHeadingElement>(null)
  return (
    <section class="part" aria-labelledby="drives-title">
      <h3 id="drives-title" ref={heading} tabIndex={-1}>
        Windows of virtio-mmio <small>{vm.believed.mmio.length}</small>
      </h3>
      <Rows rows={rows} remove={api.removeDrive} focusAfter={() => heading.current} empty="There is no drive." />
      <AddDrive taken={vm.believed.mmio.map(({ id }) => id)} />
    </section>
  )
}

interface WindowLike {
  base: string
  size: string
  irq: number
}

function windowText({ base, size, irq }: WindowLike): string {
  return `${base}, ${windowSize(size)}, irq ${irq}`
}

function driveRows({ believed, guest }: VmBody): RowView[] {
  const known = believed.mmio.map(({ id, path_on_host, is_read_only, status, ...window }): RowView => {
    const inGuest = guest?.mmio.some((other) => sameWindow(other, window))
    return {
      key: id,
      id,
      name: id,
      believed: status === 'unknown' ? 'unknown' : 'present',
      guest: inGuest,
      status: status === 'present' && inGuest === false ? 'in the VMM alone' : status,
      details: (
        <>
          <code>{windowText(window)}</code>, <code class="path">{path_on_host}</code>
          {is_read_only && ', read-only'}
        </>
      ),
    }
  })
  const foreign = (guest?.mmio ?? []).filter((window) => !believed.mmio.some((drive) => sameWindow(drive, window)))
  return [
    ...known,
    ...foreign.map(
      (window): RowView => ({
        key: ` ${window.base} ${window.irq}`,
        id: undefined,
        name: window.base,
        believed: 'free',
        guest: true,
        status: 'in the guest alone',
        details: <code>{`${windowSize(window.size)}, irq ${window.irq}`}</code>,
      }),
    ),
  ]
}

function AddDrive({ taken }: { taken: readonly string[] }) {
  const action = useAction()
  const [id, path] = [useTyped(), useTyped()]
  const readOnly = useSignal(false)
  const submit = async () => {
    if (
      !allRight([
        [id, checkId(id.text.value, taken)],
        [path, checkPath(path.text.value)],
      ])
    )
      return // prettier-ignore
    const added = id.text.value
    const body = { path_on_host: path.text.value, is_read_only: readOnly.value }
    if (
      !(await action.run(
        () => api.addDrive(added, body),
        () => `The drive ${added} is plugged in.`,
      ))
    )
      return
    id.text.value = path.text.value = ''
    readOnly.value = false
  }
  return (
    <Form label="Add a drive" action={action} submit={submit}>
      <Field typed={id} label="Id of the drive" narrow />
      <Field typed={path} label="File on this host" />
      <Check checked={readOnly} label="read-only" />
      <ActionButton action={action} submit>
        Add drive
      </ActionButton>
    </Form>
  )
}

import { describe, expect, it } from 'vitest'
import { isQemuError, QemuError, QmpCommandError } from './errors.js'

describe('an error', () => {
  it('says what it is about, what happened and what helps, and ends with the console', () => {
    const cause = new Error('why')
    const fields = { code: 'PANIC', op: 'boot', subject: 'q35', what: 'the kernel panicked', next: 'Look.', cause } as const
    const error = new QemuError({ ...fields, console: ['one', 'two'] })
    expect(error).toMatchObject({ ...fields, name: 'QemuError', console: ['one', 'two'], retryable: false })
    expect(error.message).toBe('boot q35: the kernel panicked. Look.\nlast console lines:\n  | one\n  | two')
    expect(new QemuError(fields)).toMatchObject({ console: [], message: 'boot q35: the kernel panicked. Look.' })
  })

  it('of a QMP command has the parts of the answer', () => {
    const error = new QmpCommandError('device_add', 'GenericError', 'Failed to get "write" lock')
    expect(error).toMatchObject({
      ...{ name: 'QmpCommandError', code: 'QMP_COMMAND', op: 'qmp', subject: 'device_add' },
      ...{ command: 'device_add', errorClass: 'GenericError', description: 'Failed to get "write" lock', reason: 'lock' },
      message: 'qmp device_add: Failed to get "write" lock (GenericError)',
    })
    expect(new QmpCommandError('stop', 'GenericError', 'no').reason).toBeUndefined()
  })

  it('is told from others, whichever copy of the package made it', () => {
    expect(isQemuError(new QmpCommandError('stop', 'GenericError', 'no'))).toBe(true)
    for (const other of [new Error('no'), { code: 'PANIC' }, null, 'no']) expect(isQemuError(other)).toBe(false)
  })
})

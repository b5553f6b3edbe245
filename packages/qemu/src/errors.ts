import { brandOf, type ErrorFields, FieldError } from '@upcall/foundation/error'
import { type QmpReason, reasonOf } from './qmp-text.js'

/** What went wrong, for a program to branch on. */
export type QemuErrorCode =
  /** An option does not fit the others, the image or this machine. A value of the wrong type or range is a TypeError or RangeError. */
  | 'INVALID_OPTION'
  /** QEMU, or a tool that makes images, is not installed. */
  | 'TOOL_MISSING'
  /** A tool that makes images failed. */
  | 'IMAGE'
  /** This QEMU does not know a device, machine or option of its command line, or cannot use KVM; it is of another version or build. */
  | 'UNSUPPORTED'
  /** QEMU ended while the caller still waited for its guest. */
  | 'EXITED'
  /** The guest's kernel panicked. QEMU ended with it, or the boot was given up since the kernel would have rebooted for ever. */
  | 'PANIC'
  /** Every attempt to boot stayed silent on the console. */
  | 'BOOT_SILENT'
  /** A wait took longer than the caller allows. */
  | 'DEADLINE'
  /** The caller's AbortSignal fired; `cause` is its reason. */
  | 'ABORTED'
  /** The owner closed the guest while the caller still waited for it. */
  | 'CLOSED'
  /** QEMU refused a QMP command: see {@link QmpCommandError}. */
  | 'QMP_COMMAND'
  /** The QMP connection ended, or carried something other than QMP. */
  | 'QMP_CLOSED'

/** What a {@link QemuError} consists of. */
export interface QemuErrorFields extends ErrorFields<QemuErrorCode> {
  /** The guest's last console lines, which the message ends with. */
  readonly console?: readonly string[] | undefined
}

const brand = brandOf('qemu.QemuError')

/** The error class of this package. `console` holds the last lines that the guest printed, where there is a guest. */
export class QemuError extends FieldError<QemuErrorCode> {
  override readonly name: string = 'QemuError'
  readonly console: readonly string[]

  constructor(fields: QemuErrorFields) {
    const { console = [] } = fields
    super(fields, console.length === 0 ? '' : ['last console lines:', ...console.map((line) => `  | ${line}`)].join('\n'))
    this.console = console
    brand.mark(this)
  }
}

/** True for a {@link QemuError} of any copy of this package: `instanceof` fails between its ESM and its CommonJS build. */
export function isQemuError(value: unknown): value is QemuError {
  return brand.has(value)
}

/** QEMU answered a QMP command with an error. */
export class QmpCommandError extends QemuError {
  override readonly name = 'QmpCommandError'
  /** What the description says, where this package knows it; QEMU itself has nothing but the text. */
  readonly reason: QmpReason | undefined

  constructor(
    readonly command: string,
    /** QAPI's error class, e.g. `CommandNotFound`, `DeviceNotFound`, `GenericError`. */
    readonly errorClass: string,
    /** QEMU's own words. */
    readonly description: string,
  ) {
    super({ code: 'QMP_COMMAND', op: 'qmp', subject: command, what: `${description} (${errorClass})` })
    this.reason = reasonOf(description)
  }
}

/** What an operation is about, for its errors. */
export interface About {
  readonly op: string
  readonly subject: string
}

/** The caller's signal fired. */
export function abortedError(about: About, reason: unknown, console?: readonly string[]): QemuError {
  return new QemuError({ ...about, code: 'ABORTED', what: 'the caller aborted it', cause: reason, console })
}

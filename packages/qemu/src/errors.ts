/** What went wrong, for a program to branch on. */
export type QemuErrorCode =
  /** An option has a value that QEMU, or this package, cannot take. */
  | 'INVALID_OPTION'
  /** QEMU, or a tool that makes images, is not installed. */
  | 'TOOL_MISSING'
  /** A tool that makes images failed. */
  | 'IMAGE'
  /** This QEMU does not know a device, machine or option of its command line, or cannot use KVM; it is of another version or build. */
  | 'UNSUPPORTED'
  /** QEMU ended while somebody still waited for its guest. */
  | 'EXITED'
  /** The guest's kernel panicked: QEMU ended because of it, or the boot was given up since it would have begun again and again. */
  | 'PANIC'
  /** Every attempt to boot stayed silent on the console. */
  | 'BOOT_SILENT'
  /** A wait ran out of time. */
  | 'DEADLINE'
  /** The caller's AbortSignal fired; `cause` is its reason. */
  | 'ABORTED'
  /** The guest was closed by its owner while somebody still waited for it. */
  | 'CLOSED'
  /** QEMU refused a QMP command: see {@link QmpCommandError}. */
  | 'QMP_COMMAND'
  /** The QMP connection ended, or carried something that is not QMP. */
  | 'QMP_CLOSED'

export interface QemuErrorOptions {
  cause?: unknown
  /** The guest's last console lines, also part of the message. */
  console?: readonly string[] | undefined
}

/** The one error class of this package. `console` holds the last lines the guest printed, where there is a guest. */
export class QemuError extends Error {
  readonly code: QemuErrorCode
  /** What went wrong, without the console. */
  readonly summary: string
  readonly console: readonly string[]

  constructor(code: QemuErrorCode, summary: string, { cause, console = [] }: QemuErrorOptions = {}) {
    const tail = console.length === 0 ? '' : `\nlast console lines:\n${console.map((line) => `  | ${line}`).join('\n')}`
    super(summary + tail, cause === undefined ? undefined : { cause })
    this.name = 'QemuError'
    this.code = code
    this.summary = summary
    this.console = console
  }
}

/** QEMU answered a QMP command with an error. */
export class QmpCommandError extends QemuError {
  constructor(
    readonly command: string,
    /** QAPI's error class, e.g. `CommandNotFound`, `DeviceNotFound`, `GenericError`. */
    readonly errorClass: string,
    description: string,
  ) {
    super('QMP_COMMAND', `qmp ${command}: ${description} (${errorClass})`)
    this.name = 'QmpCommandError'
  }
}

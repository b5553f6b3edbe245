export { type Clock, systemClock } from '@upcall/foundation/clock'
export type { GuestArch, MachineType } from './arch.js'
export { type Accelerator, type ArgvDescriptors, type Drive, type MachineOptions, qemuArgv } from './argv.js'
export type { BootRestart } from './boot-error.js'
export { GuestConsole, type LinesOptions, type WaitOptions } from './console.js'
export { isQemuError, QemuError, type QemuErrorCode, type QemuErrorFields, QmpCommandError } from './errors.js'
export { type BootOptions, bootGuest, type Guest } from './guest.js'
export type { DownloadAmount } from './image/debian.js'
export { makeExt4 } from './image/ext4.js'
export { buildGuestImage, type GuestImage, type ImageOptions } from './image/image.js'
export { buildKernelModule, type KernelModuleOptions } from './image/kernel-module.js'
export { type GuestRun, type RunOptions, type RunResult, runInGuest, startInGuest } from './image/run.js'
export { missingTools, requireTools } from './image/tools.js'
export { type Log as ConsoleLog, openLogFile } from './log.js'
export { findQemu, type QemuExit } from './process.js'
export {
  connectQmp,
  type EventWaitOptions,
  type ExecuteOptions,
  type HandshakeOptions,
  QmpClient,
  type QmpEvent,
  type QmpOptions,
} from './qmp.js'
export type { QmpReason } from './qmp-text.js'

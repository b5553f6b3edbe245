export { type Hardware, MEMORY_BLOCK, machineOptions, type ShimMachine } from './hardware.js'
export { type LaunchOptions, type OwnKernel, prepareLaunch } from './launch.js'
export { QemuMachine, type QemuMachineOptions, type RunningQemu } from './machine.js'
export { Slots } from './slots.js'

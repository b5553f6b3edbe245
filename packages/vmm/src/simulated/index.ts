export { FAULTS, type Fault } from './faults.js'
export { runSimulatedGuest } from './guest-program.js'
export { SimulatedMachine, type SimulatedMachineOptions } from './simulated-machine.js'

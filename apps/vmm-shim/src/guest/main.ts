// The guest's process.
import { runSimulatedGuest } from '@upcall/vmm/simulated'

runSimulatedGuest()

import type { Connection } from '../src/machine/connection.js'
import { DeviceError } from '../src/machine/errors.js'
import type { OutgoingMessage } from '../src/machine/message-queue.js'
import { MEMORY_SIZE } from './fake-guest.js'
import { FakeVm } from './fake-vm.js'

const WALL = 4096
const WALL_BYTE = 0xa5

/** Guest memory with walls on both sides: whatever leaves it shows. */
export function walled(): { memory: Uint8Array; intact: () => boolean } {
  const all = new Uint8Array(MEMORY_SIZE + 2 * WALL).fill(WALL_BYTE)
  const memory = all.subarray(WALL, WALL + MEMORY_SIZE)
  memory.fill(0)
  const walls = [all.subarray(0, WALL), all.subarray(WALL + MEMORY_SIZE)]
  return { memory, intact: () => walls.every((wall) => wall.every((byte) => byte === WALL_BYTE)) }
}

/** One thing that a guest or its host does. */
export type Act = (vm: FakeVm, connections: Connection[]) => void

/** What an owner does with messages: the second one is taken back. */
export function sendAndWithdraw(connection: Connection): void {
  const most = Math.max(1, connection.maxMessageBytes)
  const message = (length: number): OutgoingMessage => ({ data: new Uint8Array(length), eor: length === 1, state: 'waiting' })
  const second = message(1)
  connection.send(message(most))
  connection.send(second)
  connection.withdraw(second)
}

const LIMITS = { maxConnections: 8, bufferBytes: 8192 }

/** A device that has to bear whatever a guest does: throws as soon as it does not. Says which faults it stopped for. */
export function trial(acts: Iterable<Act>): DeviceError['code'][] {
  const { memory, intact } = walled()
  const vm = new FakeVm(LIMITS, { size: 16, memory, budget: { bytes: 65536, descriptors: 64 } })
  vm.device.muxer.seqpacket = true
  const connections: Connection[] = []
  const faults: DeviceError['code'][] = []
  for (const act of acts) {
    act(vm, connections)
    try {
      vm.device.process(vm.rx, vm.tx, vm.now)
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error
      faults.push(error.code)
      vm.device.muxer.abandon()
      vm.restart()
    }
    for (const news of vm.device.muxer.takeNews()) if (!connections.includes(news)) connections.push(news)
    must(vm.device.muxer.size <= LIMITS.maxConnections, 'more connections than are allowed')
    must(vm.device.muxer.waiting <= LIMITS.maxConnections + 64, 'more waits for the guest than is allowed')
    for (const { inputPending, inputMessages } of connections) {
      must(inputPending <= LIMITS.bufferBytes, 'more bytes than were credited')
      must(inputMessages <= inputPending, 'messages without a byte')
    }
  }
  must(intact(), 'the device wrote outside guest memory')
  return faults
}

function must(holds: boolean, otherwise: string): void {
  if (!holds) throw new Error(otherwise)
}

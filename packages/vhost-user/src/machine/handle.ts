import type { Connection, ConnectionState, VsockConnection } from './connection.js'
import type { DirectPort } from './direct.js'
import type { ConnectionOutcome } from './life.js'
import type { ReceivedMessage } from './message-buffer.js'
import type { OutgoingMessage } from './message-queue.js'
import type { SocketType } from './packet.js'
import type { Direction } from './policy.js'

/** A connection as the muxer hands it out: the muxer hears of everything that its owner does. */
export class Handle implements Connection {
  readonly hostCid: number
  readonly hostPort: number
  readonly guestPort: number
  readonly type: SocketType
  /** For the muxer alone, which follows up on what it does. */
  readonly machine: VsockConnection
  /** Who began it. */
  readonly direction: Direction
  readonly #onTouch: () => void

  constructor(machine: VsockConnection, direction: Direction, onTouch: () => void) {
    this.machine = machine
    this.direction = direction
    this.hostCid = machine.hostCid
    this.hostPort = machine.hostPort
    this.guestPort = machine.guestPort
    this.type = machine.type
    this.#onTouch = onTouch
  }

  get state(): ConnectionState {
    return this.machine.state
  }
  get outcome(): ConnectionOutcome | undefined {
    return this.machine.outcome
  }
  get opened(): boolean {
    return this.machine.opened
  }
  get inputEnded(): boolean {
    return this.machine.inputEnded
  }
  get inputComplete(): boolean {
    return this.machine.inputComplete
  }
  get inputPending(): number {
    return this.machine.inputPending
  }
  get inputMessages(): number {
    return this.machine.inputMessages
  }
  get outputRefused(): boolean {
    return this.machine.outputRefused
  }
  get outputPending(): number {
    return this.machine.outputPending
  }
  get outputLost(): boolean {
    return this.machine.outputLost
  }

  read(): Uint8Array | undefined {
    return this.machine.read()
  }

  get maxMessageBytes(): number {
    return this.machine.maxMessageBytes
  }

  readMessage(): ReceivedMessage | undefined {
    return this.machine.readMessage()
  }

  accept(): void {
    this.machine.accept()
    this.#onTouch()
  }

  consumed(count: number, now: number): void {
    this.machine.consumed(count, now)
    this.#onTouch()
  }

  write(chunk: Uint8Array): void {
    this.machine.write(chunk)
    this.#onTouch()
  }

  send(message: OutgoingMessage): void {
    this.machine.send(message)
    this.#onTouch()
  }

  withdraw(message: OutgoingMessage): void {
    this.machine.withdraw(message)
    this.#onTouch()
  }

  attach(port: DirectPort | undefined): void {
    this.machine.attach(port)
    this.#onTouch()
  }

  arrived(): void {
    this.machine.arrived()
    this.#onTouch()
  }

  end(): void {
    this.machine.end()
    this.#onTouch()
  }

  close(now: number): void {
    this.machine.close(now)
    this.#onTouch()
  }

  reset(): void {
    this.machine.reset()
    this.#onTouch()
  }
}

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { expect } from 'vitest'

// One table of how a stream can end, for everything that carries streams between two peers: who ends it, how, when, after how many
// bytes, and what the other one has to see of it. Both peers are real Unix sockets.

/** How a connection ended, as what carried it tells. `refused`: it was not made. */
export type Verdict = 'ok' | 'broken' | 'refused'

export interface Passage {
  /** Resolves when the near peer's wish has been understood, and the far one is looked for. */
  readonly asked: Promise<unknown>
  /** Of its one connection, when that is over. */
  readonly verdict: Promise<Verdict>
  /** Breaks its way to the far peer with an error of its own. */
  breakFar?(): void
  close(): Promise<unknown>
}

/**
 * Something that carries streams from `near`, where it listens, to `far`, where it connects, for up to 30 s if there is no listener
 * yet. Silence, where it is bounded at all, is allowed for minutes: what needs that to end fails here.
 */
export interface PassageKind {
  readonly name: string
  /** What the near peer says first, and is answered with a line. */
  readonly greeting: string
  /** The near peer's EOF leaves the way back open. */
  readonly halfClose: boolean
  /** The near peer's EOF is kept back until the far one has ended. */
  readonly holdsEof?: boolean
  /** It closes the other peer at once when one has closed; else that has some seconds to end by itself, and does. */
  readonly closesAtOnce?: boolean
  /** It can break its way to the far peer by itself: `breakFar`. */
  readonly breaks?: boolean
  open(where: { near: string; far: string }): Promise<Passage>
}

type Side = 'near' | 'far'
/**
 * `end`: the other one ends then, too. `half-close`: the other one answers first. `close`: both directions at once, nothing unread.
 * `reset`: with bytes unread. `error`: of the passage. `kill`: the peer is a process, which is killed.
 */
type Act = 'end' | 'half-close' | 'close' | 'reset' | 'error' | 'kill'
/** `before`: with the first bytes. `during`: while the far peer is looked for. `waiting`: what was said is not read until then. */
type Moment = 'before' | 'during' | 'after' | 'waiting'

export interface EndCase {
  readonly side: Side
  readonly act: Act
  readonly moment: Moment
  /** Said by the side that ends. */
  readonly bytes: number
  readonly name: string
  /** How many of the bytes the other one gets. */
  readonly heard: 'all' | 'some'
  readonly verdicts: readonly Verdict[]
}

const ANSWER = 100_000
/** More than sockets and streams on the way hold. */
const UNREAD = 16 << 20
const DEADLINE_MS = 20_000

/** The rows for one kind of passage. */
export function endCases(kind: PassageKind): EndCase[] {
  const cases: EndCase[] = []
  const sizes = { before: [0, 5, 150_000], during: [0, 5, 150_000], after: [0, 300_000], waiting: [150_000] }
  for (const side of ['near', 'far'] as const)
    for (const moment of ['before', 'during', 'after', 'waiting'] as const)
      for (const act of ['end', 'half-close', 'close', 'reset', 'error', 'kill'] as const)
        for (const bytes of sizes[moment]) {
          const early = moment === 'before' || moment === 'during'
          // There is no far peer yet, nothing that could be left unread, or no way to tell it apart.
          if (side === 'far' && moment === 'before') continue
          if (side === 'near' && moment === 'during' && kind.greeting === '') continue
          if (early && (act === 'reset' || act === 'error' || act === 'kill')) continue
          if (act === 'error' && (side === 'near' || !kind.breaks)) continue
          // The VMM's nature, and no fault of what carries it.
          if (act === 'half-close' && side === 'near' && !kind.halfClose) continue
          if (act === 'end' && side === 'near' && kind.holdsEof) continue
          // 0 bytes: a peer that closes, or cannot be answered, has nothing to be connected for.
          const vain = side === 'near' && early && bytes === 0 && (act === 'close' || !kind.halfClose)
          const breaks = act === 'reset' || act === 'error'
          cases.push({
            ...{ side, act, moment, bytes },
            name: `${side}, ${moment}, ${act} after ${bytes} bytes`,
            heard: act === 'reset' ? 'some' : 'all',
            verdicts: breaks ? ['broken'] : vain ? ['ok', 'refused'] : ['ok'],
          })
        }
  return cases
}

/** One row, over fresh sockets. */
export async function runEndCase(kind: PassageKind, row: EndCase): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'ends-'))
  const where = { near: join(dir, 'near'), far: join(dir, 'far') }
  const closers: (() => unknown)[] = [() => rmSync(dir, { recursive: true, force: true })]
  try {
    const passage = await kind.open(where)
    closers.push(() => passage.close())
    await new Play(kind, row, passage, where, closers).run()
  } finally {
    for (const close of closers.reverse()) await close()
  }
}

class Play {
  readonly #kind: PassageKind
  readonly #row: EndCase
  readonly #passage: Passage
  readonly #where: { near: string; far: string }
  readonly #closers: (() => unknown)[]
  #refused = false

  constructor(
    kind: PassageKind,
    row: EndCase,
    passage: Passage,
    where: { near: string; far: string },
    closers: (() => unknown)[],
  ) {
    this.#kind = kind
    this.#row = row
    this.#passage = passage
    this.#where = where
    this.#closers = closers
    void passage.verdict.then((verdict) => {
      this.#refused = verdict === 'refused'
    })
  }

  async run(): Promise<void> {
    const { side, act } = this.#row
    const [actor, other] = act === 'kill' ? await this.#killed() : await (side === 'near' ? this.#nearActs() : this.#farActs())
    if (other) {
      const { heard, bytes } = this.#row
      if (heard === 'all')
        await until(
          () => other.heard === bytes && other.over,
          () => other.said,
        )
      else
        await until(
          () => other.over,
          () => other.said,
        )
      expect(other.heard).toBeLessThanOrEqual(bytes)
      if (act !== 'reset' && act !== 'error') expect(other.failure).toBeUndefined()
    }
    if (act === 'half-close')
      await until(
        () => actor?.heard === ANSWER && actor.over,
        () => actor?.said,
      )
    const verdict = await within(this.#passage.verdict)
    expect(this.#row.verdicts).toContain(verdict)
  }

  async #nearActs(): Promise<[Peer, Peer | undefined]> {
    const { act, moment, bytes } = this.#row
    const early = moment === 'before' || moment === 'during'
    let accepted = moment === 'during' ? undefined : await this.#listen()
    const near = await this.#dial()
    let far: Peer | undefined
    if (early) {
      near.socket.write(this.#kind.greeting)
      if (moment === 'during') {
        near.say(bytes)
        await this.#passage.asked
        this.#act(near, act, 0)
        accepted = await this.#listen()
      } else {
        this.#act(near, act, bytes)
      }
      near.read()
      await until(() => accepted?.peer !== undefined || this.#refused)
      far = accepted?.peer
    } else {
      near.socket.write(this.#kind.greeting)
      if (this.#kind.greeting !== '') await near.greeted()
      await until(() => accepted?.peer !== undefined)
      far = accepted?.peer
      if (act === 'reset') await far?.overwhelm()
      else near.read()
      if (moment === 'after') far?.read()
      this.#act(near, act, bytes)
      if (moment === 'waiting' && act !== 'end' && act !== 'half-close') await until(() => near.over)
    }
    far?.read()
    far?.respond(act, this.#kind.closesAtOnce)
    return [near, far]
  }

  async #farActs(): Promise<[Peer, Peer]> {
    const { act, moment, bytes } = this.#row
    const accepted = await this.#listen()
    const near = await this.#dial()
    near.socket.write(this.#kind.greeting)
    const greeted = this.#kind.greeting === '' ? undefined : near.greeted()
    if (moment !== 'during') await greeted
    await until(() => accepted.peer !== undefined)
    const far = accepted.peer as Peer
    if (act === 'reset') await near.overwhelm()
    else far.read()
    if (moment === 'after') near.read()
    this.#act(far, act, bytes)
    if (moment === 'during') await greeted
    if (act === 'error') {
      near.read()
      await until(() => near.heard === bytes)
      this.#passage.breakFar?.()
    } else if (moment === 'waiting' && act !== 'end' && act !== 'half-close') await until(() => far.over)
    near.read()
    near.respond(act, this.#kind.closesAtOnce)
    return [far, near]
  }

  /** The side that ends is a process. */
  async #killed(): Promise<[undefined, Peer]> {
    const { side, moment, bytes } = this.#row
    const { near, far } = this.#where
    let other: Peer
    let child: Child
    if (side === 'near') {
      const accepted = await this.#listen()
      child = this.#spawn(near, this.#kind.greeting, bytes, false)
      await until(() => accepted.peer !== undefined)
      other = accepted.peer as Peer
    } else {
      child = this.#spawn(far, '', bytes, true)
      await until(() => child.says.includes('listening'))
      other = await this.#dial()
      other.socket.write(this.#kind.greeting)
      if (this.#kind.greeting !== '') await other.greeted()
    }
    if (moment === 'after') other.read()
    await until(() => child.says.includes('said'))
    child.process.kill('SIGKILL')
    await child.gone
    other.read()
    other.respond('kill', this.#kind.closesAtOnce)
    return [undefined, other]
  }

  #act(peer: Peer, act: Act, bytes: number): void {
    const { socket } = peer
    if (act === 'error') peer.say(bytes)
    else if (act === 'end' || act === 'half-close') socket.end(Buffer.alloc(bytes))
    else if (socket.writableLength === 0 && bytes === 0 && act === 'close') socket.destroy()
    else socket.write(Buffer.alloc(bytes), () => socket.destroy())
  }

  async #dial(): Promise<Peer> {
    const socket = connect({ path: this.#where.near, allowHalfOpen: true })
    const peer = new Peer(socket, this.#kind.greeting !== '')
    this.#closers.push(() => socket.destroy())
    await new Promise((resolve) => socket.once('connect', resolve))
    return peer
  }

  async #listen(): Promise<{ peer?: Peer }> {
    const accepted: { peer?: Peer } = {}
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      this.#closers.push(() => socket.destroy())
      accepted.peer = new Peer(socket, false)
    })
    this.#closers.push(() => server.close())
    await new Promise<void>((resolve) => server.listen(this.#where.far, resolve))
    return accepted
  }

  #spawn(path: string, greeting: string, bytes: number, listens: boolean): Child {
    const script = `
      const net = require('node:net')
      const [path, greeting, bytes, listens] = JSON.parse(process.argv[1])
      const serve = (socket) => {
        const say = () => socket.write(Buffer.alloc(bytes), () => process.stdout.write('said'))
        socket.on('error', () => {})
        if (greeting === '') socket.resume()
        else socket.write(greeting)
        if (greeting === '') say()
        else socket.once('data', say).resume()
      }
      const options = { allowHalfOpen: true }
      if (listens) net.createServer(options, serve).listen(path, () => process.stdout.write('listening'))
      else serve(net.connect({ path, ...options }))
      process.stdin.resume()
    `
    const child = spawn(process.execPath, ['-e', script, JSON.stringify([path, greeting, bytes, listens])], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const gone = new Promise((resolve) => child.once('exit', resolve))
    const spawned: Child = { process: child, says: '', gone }
    child.stdout.on('data', (chunk) => {
      spawned.says += chunk
    })
    this.#closers.push(() => child.kill('SIGKILL') && gone)
    return spawned
  }
}

interface Child {
  readonly process: ChildProcess
  says: string
  readonly gone: Promise<unknown>
}

class Peer {
  /** Bytes, but for the answer to its greeting. */
  heard = 0
  failure: Error | undefined
  /** The other end will say nothing more. */
  over = false
  #greeted: (() => void) | undefined
  readonly #greeting: Promise<void>
  #line: string | undefined

  constructor(
    readonly socket: Socket,
    greets: boolean,
  ) {
    this.#line = greets ? '' : undefined
    this.#greeting = new Promise((resolve) => {
      this.#greeted = resolve
    })
    const end = () => {
      this.over = true
    }
    socket.pause()
    socket.on('end', end).on('close', end)
    socket.on('error', (error) => {
      this.failure = error
    })
  }

  /** What it has seen, for a failure's text. */
  get said(): string {
    return `heard ${this.heard}, over: ${this.over}, ${this.failure?.message}`
  }

  /** The answer to its greeting has come. Nothing behind it has been read yet. */
  async greeted(): Promise<void> {
    const take = () => {
      for (let byte = this.socket.read(1); byte !== null && this.#line !== undefined; byte = this.socket.read(1)) {
        this.#line += String(byte)
        if (!this.#line.endsWith('\n')) continue
        this.#line = undefined
        this.socket.off('readable', take)
        this.#greeted?.()
        return
      }
    }
    this.socket.on('readable', take)
    await within(this.#greeting)
  }

  read(): void {
    if (this.socket.listenerCount('data') > 0) return
    this.socket.on('data', (chunk: Buffer) => {
      if (this.#line === undefined) {
        this.heard += chunk.length
        return
      }
      const end = chunk.indexOf('\n')
      if (end < 0) return
      this.#line = undefined
      this.heard += chunk.length - end - 1
    })
    this.socket.resume()
  }

  say(bytes: number): void {
    this.socket.write(Buffer.alloc(bytes))
  }

  /** Says more than anything on the way holds, to a peer that does not read, until it stands still: the rest waits before the other. */
  async overwhelm(): Promise<void> {
    this.say(UNREAD)
    let last = 0
    let looks = 0
    await until(() => {
      const left = this.socket.writableLength
      looks = left > 0 && left === last && this.socket.bytesWritten > 0 ? looks + 1 : 0
      last = left
      return looks > 5
    })
  }

  /** What it does when the other one has ended. If the other one has gone, it waits to be told. */
  respond(act: Act, closesAtOnce = false): void {
    if (closesAtOnce && act !== 'end' && act !== 'half-close') return
    const answer = () => {
      if (act === 'half-close') this.socket.end(Buffer.alloc(ANSWER))
      else this.socket.end()
    }
    if (this.socket.readableEnded) answer()
    else this.socket.once('end', answer)
  }
}

/** Not expect.poll, which does not know tests that run side by side. */
async function until(holds: () => boolean, what: () => string | undefined = () => undefined): Promise<void> {
  for (const deadline = performance.now() + DEADLINE_MS; !holds(); await delay(5))
    if (performance.now() > deadline) throw new Error(`not within ${DEADLINE_MS} ms: ${what() ?? holds}`)
}

async function within<T>(wanted: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${DEADLINE_MS} ms`)), DEADLINE_MS)
  })
  try {
    return await Promise.race([wanted, late])
  } finally {
    clearTimeout(timer)
  }
}

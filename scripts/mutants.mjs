// Do the tests notice damage? Puts one fault at a time into the sources (in memory, while vitest loads them) and runs the tests that run
// the faulty line. A fault that no test notices is a hole. `npm run mutants` runs all of them, `npm run mutants -- fact-7` those whose
// name contains that, `--json=<file>` writes a report, `--stale` only looks whether each line is still there. Faults that carry a fact's number break what a numbered fact of the protocol
// asks for (docs/protocol.md).
//
// The first run is without faults. It tells which test files run which fault's line, and how long they take: from that comes the time
// that a fault's run gets. A run that needs more is cut off. A test that does not end is failed by its own limit (testTimeout), so a run
// that is cut off proves nothing, except where a fault blocks the whole process: such a fault says `hangs: true`.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { runTests, traceTests } from './mutant-run.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Faults in one package, which the tests of these projects have to notice. One that `hangs` blocks the process that runs the test. */
const faultsIn =
  (folder, projects = [folder], parent = 'packages') =>
  (name, file, find, replace, { hangs = false } = {}) => ({
    name: `${folder}: ${name}`,
    file: `${parent}/${folder}/src/${file}`,
    find,
    replace,
    projects,
    hangs,
  })

const wire = faultsIn('wire')
const client = faultsIn('client', ['client', 'tests'])
const server = faultsIn('server')
const manager = faultsIn('device-manager', ['device-manager', 'tests'])
const guest = (name, file, ...fault) => faultsIn('device-manager')(name, `guest/${file}`, ...fault)
const vsock = faultsIn('vsock')
const testkit = faultsIn('testkit', ['testkit', 'tests'])
const vhostUser = faultsIn('vhost-user')
const qemu = faultsIn('qemu')
const shim = faultsIn('vmm-shim', ['vmm-shim'], 'apps')
const cli = faultsIn('cli', ['cli'], 'apps')

const faults = [
  wire(
    'the magic is written big-endian',
    'bytes.ts',
    'bytes[at] = value\n  bytes[at + 1] = value >>> 8',
    'bytes[at + 1] = value\n  bytes[at] = value >>> 8',
  ),
  wire('the upper half of a u64 is lost', 'bytes.ts', 'Number(value >> 32n)', '0'),
  wire('u32s are read signed', 'bytes.ts', 'return getI32(bytes, at) >>> 0', 'return getI32(bytes, at)'),
  wire('a wrong magic is accepted', 'header.ts', 'if (header.magic !== MAGIC_VERSION) {', 'if (header.magic === 0) {'),
  wire(
    'a message of another length is accepted',
    'header.ts',
    'if (bytes.length !== MESSAGE_SIZE)',
    'if (bytes.length < MESSAGE_SIZE)',
  ),
  wire("the greeting's flags are not looked at", 'header.ts', 'if (flags !== 0) throw', 'if (false) throw'),
  wire("the greeting's size is not looked at", 'header.ts', 'if (size !== 0) throw', 'if (false) throw'),
  wire("the caller's buffer is not cleared", 'header.ts', 'return targetMessage(into).fill(0)', 'return targetMessage(into)'),
  wire('a buffer that is too short is accepted', 'header.ts', 'if (into.length < MESSAGE_SIZE)', 'if (into.length < 16)'),
  wire(
    'fact-2: an index that is not declared is read',
    'reply.ts',
    'if (size === 0) return { type, result }',
    'if (size === 1) return { type, result }',
  ),
  wire('a reply may declare any size', 'reply.ts', 'if (size !== 0) throw wrongSize', 'if (false) throw wrongSize'),
  wire(
    'fact-2: a reply is written over the whole buffer',
    'reply.ts',
    'const bytes = targetMessage(into)',
    'const bytes = blankMessage(into)',
  ),
  wire('fact-5: count 0 is sent', 'request.ts', 'apicIds.length < 1 || apicIds', 'apicIds'),
  wire(
    'fact-5: count 0 is sent on aarch64',
    'request.ts',
    "integer(request.count, 'count', 1, MAX_CPUS)",
    "integer(request.count, 'count', 0, MAX_CPUS)",
  ),
  wire('fact-7: duplicate ids are sent', 'request.ts', 'if (first >= 0) throw', 'if (false) throw'),
  wire(
    'a hole in the ids is sent as id 0',
    'request.ts',
    'for (const [i, id] of apicIds.entries()) {',
    'for (const [i, id] of apicIds.entries()) {\n    if (!(i in apicIds)) continue',
  ),
  wire(
    'fact-11: aarch64 requests are read as on x86_64',
    'request.ts',
    "if (arch === 'aarch64') return { type, count }",
    'if (false) return { type, count }',
  ),
  wire('fact-13: irq 0 is refused on aarch64', 'request.ts', "irq === 0 && arch === 'x86_64'", 'irq === 0'),
  wire('fact-13: irq 0 is sent on x86_64', 'request.ts', "irq === 0 && arch === 'x86_64'", 'false'),
  wire('a window may end beyond 2^64', 'request.ts', 'if (base + size > 1n << 64n) {', 'if (base + size > 1n << 65n) {'),
  wire(
    'a window may not end at the last byte',
    'request.ts',
    'if (base + size > 1n << 64n) {',
    'if (base + size >= 1n << 64n) {',
  ),
  wire("an MMIO request's size is not looked at", 'request.ts', 'if (size !== MMIO_SIZE)', 'if (false)'),
  wire(
    'what is decoded from a Buffer is a view of it',
    'bytes.ts',
    'return new Uint8Array(bytes.subarray(from, to))',
    'return bytes.slice(from, to)',
  ),
  wire(
    'frames share one buffer',
    'frames.ts',
    'this.#partial = new Uint8Array(this.size)\n        this.#pending = 0',
    'this.#pending = 0',
  ),
  wire('pending bytes are forgotten', 'frames.ts', 'this.#pending += piece.length', 'this.#pending = piece.length'),
  wire('a message may be of no size', 'frames.ts', "integer(size, 'size', 1, MAX_SIZE)", 'size'),
  wire(
    'a load is overwritten before it is copied',
    'header.ts',
    'load.buffer === into?.buffer ? copyOf(load, 0, load.length) : load',
    'load',
  ),

  client(
    'fact-4: the reply is not checked',
    'machine/table.ts',
    'reply = service.decode(frame, ticket.request)',
    "try {\n      reply = service.decode(frame, ticket.request)\n    } catch {\n      reply = { type: 'ADD_PCI', result: 0 }\n    }",
  ),
  client(
    'fact-3: a failed reply leaves the channel clean',
    'machine/table.ts',
    'clean = state.channel.clean && !service.failed(reply)',
    'clean = true',
  ),
  client(
    'fact-3: the next success makes it clean again',
    'machine/table.ts',
    'clean = state.channel.clean && !service.failed(reply)',
    'clean = !service.failed(reply)',
  ),
  client('fact-3: nobody asks for a clean channel', 'machine/table.ts', 'if (ticket.needsClean && !channel.clean)', 'if (false)'),
  client(
    'fact-15: a guest that hangs up is called at full speed',
    'machine/table.ts',
    'if (channel.proven || lasted) c.attempts = 0',
    'c.attempts = 0',
  ),
  client(
    'fact-16: a connection that ends before the greeting is final',
    'machine/table.ts',
    "tryAgain(c, 'disconnected', ended(c, 'before the service greeted: the guest may still be booting', error), state.conn)",
    'giveUp(c, error, state.conn)',
  ),
  client(
    'fact-17: a timed-out request leaves the channel open',
    'machine/table.ts',
    "return lose(c, channel, 'request-timeout', fail(c, ticket, 'TIMEOUT', 'indeterminate', what))",
    "fail(c, ticket, 'TIMEOUT', 'indeterminate', what)\n      return { kind: 'Ready', channel }",
  ),
  client(
    'fact-17: an aborted request leaves the channel open',
    'machine/table.ts',
    "return lose(c, state.channel, 'request-aborted', event.reason)",
    "return { kind: 'Ready', channel: state.channel }",
  ),
  client(
    'fact-17: a late reply is taken for the next one',
    'machine/table.ts',
    "bytes: (c, { channel }) => lose(c, channel, 'protocol', unasked(c)),",
    'bytes: (_c, state) => state,',
  ),
  client(
    'bytes behind a reply are ignored',
    'machine/table.ts',
    "if (more.length > 0 || channel.decoder.pending > 0) return lose(c, channel, 'protocol', unasked(c))",
    '',
  ),
  client(
    'bytes behind the greeting are ignored',
    'machine/table.ts',
    "if (more.length > 0 || decoder.pending > 0) return tryAgain(c, 'protocol', unasked(c), conn)",
    '',
  ),
  client(
    'a request that was sent is called not-sent',
    'machine/table.ts',
    "fail(c, ticket, 'DISCONNECTED', 'indeterminate', what, error)",
    "fail(c, ticket, 'DISCONNECTED', 'not-sent', what, error)",
  ),
  client('a request that was not written is lost', 'machine/table.ts', 'c.queue.unshift(ticket)', ''),
  client(
    'the queue is not first in, first out',
    'machine/queue.ts',
    'return this.#slots[this.#first]',
    'return this.#slots.findLast((ticket) => ticket !== undefined)',
  ),
  client('the queue has no limit', 'machine/table.ts', 'c.queue.length < queue.limit', 'true'),
  client("'busy' queues", 'machine/table.ts', "if (state.kind === 'Busy' || c.queue.length > 0) fail", 'if (false) fail'),
  client(
    'idle EOF is not noticed',
    'machine/table.ts',
    "ended: (c, { channel }, { error }) => lose(c, channel, 'disconnected', ended(c, 'while idle', error)),",
    'ended: (_c, state) => state,',
  ),
  client(
    'the budget is never refilled',
    'machine/table.ts',
    'cause: unknown): Session {\n  c.budgetEnd = c.now + budget(c)',
    'cause: unknown): Session {',
  ),
  client(
    'the budget runs while ready',
    'machine/table.ts',
    '/** Leaves a connection that was ready: the budget is full again. */\nfunction lose(c: Context, channel: Channel, reason: ReconnectReason, cause: unknown): Session {\n  c.budgetEnd = c.now + budget(c)',
    'function lose(c: Context, channel: Channel, reason: ReconnectReason, cause: unknown): Session {\n  c.budgetEnd = channel.since + budget(c)',
  ),
  client(
    'a final dial error is tried again',
    'machine/table.ts',
    "(final ? giveUp(c, error) : tryAgain(c, 'dial-failed', error))",
    "tryAgain(c, 'dial-failed', final ? error : error)",
  ),
  client('waiting requests never expire', 'machine/machine.ts', '    expire(c)\n', ''),
  client(
    'events of an old connection count',
    'machine/machine.ts',
    "if ('conn' in event && event.conn !== connOf(this.#session)) return []",
    '',
  ),
  client('the delay is not jittered', 'machine/context.ts', '+ random * Math', '+ Math'),
  client('the delay does not double', 'machine/context.ts', '2 ** attempt', '2'),
  client(
    'close() leaves the stream open',
    'machine/table.ts',
    "if (conn !== undefined) c.effects.push({ type: 'drop', conn })",
    '',
  ),
  client(
    'a dial that ends after close() leaves its stream',
    'connections.ts',
    'if (connection.controller.signal.aborted) {\n      stream.destroy()\n      return\n    }',
    'if (connection.controller.signal.aborted) return',
  ),
  client(
    "the caller's abort is not listened to",
    'abort.ts',
    "signal.addEventListener('abort', this.#onAbort, { once: true })",
    '',
  ),

  client('close() does not see a dial that begins behind it', 'connections.ts', '    await undefined\n    while (', '    if ('),
  client(
    'each request puts a listener on a shared signal',
    'abort.ts',
    'this.#waiting.get(signal) ?? this.#listen(signal)',
    'this.#listen(signal)',
  ),
  client(
    'the first to leave a shared signal takes the listener away from the others',
    'abort.ts',
    'if (waiting.size > 0 || this.#waiting.get(signal) !== waiting) return',
    'if (this.#waiting.get(signal) !== waiting) return',
  ),
  client(
    'the last to leave a shared signal leaves the listener',
    'abort.ts',
    "signal.removeEventListener('abort', this.#onAbort)",
    '',
  ),
  client(
    "close()'s long time is a timer that fires at once",
    'client.ts',
    'Math.min(session.dialMs, LONGEST_TIMER_MS)',
    'session.dialMs',
  ),
  client(
    'a stream that has ended when it is delivered is waited for',
    'connections.ts',
    'if (stream.destroyed || stream.readableEnded) {',
    'if (false) {',
  ),
  client(
    'a stream that is gone when it is delivered is waited for at close()',
    'connections.ts',
    'if (stream.closed) close()',
    '',
  ),
  client(
    'a stream that is destroyed without a word is not noticed',
    'connections.ts',
    "stream.on('close', () => this.#tell({ type: 'ended', conn, error: failed }))",
    '',
  ),
  client('what a listener does comes before what it listens to', 'client.ts', 'if (this.#performing) return', ''),
  client(
    'ready() that runs out of time does not say why',
    'client.ts',
    'ms; the client goes on trying`, this.#machine.cause))',
    'ms; the client goes on trying`))',
  ),
  client(
    "a service's member may be missing",
    'checked-service.ts',
    "for (const name of ['checkGreeting', 'encode', 'decode', 'failed', 'replyTimeoutMs'] as const)",
    "for (const name of ['encode'] as const)",
  ),
  client(
    'a message of any length is sent',
    'checked-service.ts',
    'if (!(bytes instanceof Uint8Array) || bytes.length !== size) {',
    'if (!(bytes instanceof Uint8Array)) {',
  ),
  client('a buffer of the service is sent later', 'checked-service.ts', 'return new Uint8Array(bytes)', 'return bytes'),
  client('a reply that is nothing is one', 'checked-service.ts', 'if (reply === undefined) throw', 'if (false) throw'),
  client('a reply is waited for without end', 'checked-service.ts', ' || ms === Number.POSITIVE_INFINITY)', ')'),
  client(
    "a service's promise that fails ends the process",
    'checked-service.ts',
    'Promise.resolve(value).catch(() => {})',
    'void value',
  ),
  client(
    'a random number may be none',
    'machine/context.ts',
    "typeof random !== 'number' || !(random >= 0 && random <= 1)",
    'false',
  ),
  client('a stream that stands still is not set going', 'connections.ts', '    stream.resume()\n', ''),
  client('text is taken for bytes', 'connections.ts', 'if (chunk instanceof Uint8Array) this', 'if (chunk) this'),
  client('what calls back while the machine works is not kept for later', 'client.ts', 'if (this.#handling) return', ''),
  client(
    'a refused request is not logged',
    'client.ts',
    "log('%s request refused, nothing was sent: %o', this.#remote, error)",
    '',
  ),
  client('a signal is taken as it comes', 'client.ts', '  checkSignal(signal)\n', ''),
  client(
    'what has waited too long is told of by its time, not in its order',
    'machine/queue.ts',
    '[...expired].sort((a, b) => this.#places.get(a.id)! - this.#places.get(b.id)!)',
    '[...expired]',
  ),
  manager('a vCPU is started although the resize was aborted', 'resize.ts', '      time.check(this.#subject(target))\n', ''),
  manager(
    'a vCPU is removed although the resize was aborted',
    'resize.ts',
    '    this.check(subject)\n    if (this.#deadline === undefined)',
    '    if (this.#deadline === undefined)',
  ),
  manager('a resize takes a time that is none', 'resize.ts', "!(typeof timeoutMs === 'number' && timeoutMs > 0)", 'false'),
  manager(
    "a resize's long time is a timer that fires at once",
    'resize.ts',
    'if (timeoutMs <= LONGEST_TIMER_MS) {',
    'if (true) {',
  ),
  manager(
    'a hole among the present vCPUs is not seen',
    'resize.ts',
    'for (const [i, id] of present.entries()) {',
    'for (const [i, id] of present.entries()) {\n    if (!(i in present)) continue',
  ),
  manager('a missing request is not called that', 'manager.ts', "request?.type === 'ADD_CPU'", "request.type === 'ADD_CPU'"),
  manager('fact-6: a refused batch is rolled back as if nothing had happened', 'resize.ts', ' && ids.length === 1', ''),
  manager('+1 is rolled back', 'resize.ts', 'error.errno < 0 && ', ''),
  manager('an indeterminate add is rolled back', 'resize.ts', "if (error.outcome === 'not-sent') return true", 'return true'),
  manager(
    'vCPUs are stopped before the guest agrees',
    'resize.ts',
    "      try {\n        await this.#send(this.#request('DEL_CPU'",
    "      await options.stop([...ids])\n      try {\n        await this.#send(this.#request('DEL_CPU'",
  ),
  manager(
    'fact-7: ids are removed ascending',
    'cpu-order.ts',
    "type === 'ADD_CPU' ? (a, b) => a - b : (a, b) => b - a",
    '(a, b) => a - b',
  ),
  manager(
    'fact-7: the boot CPU is removed',
    'cpu-order.ts',
    "if (id === 0) throw argument(path, 'CPU 0",
    "if (false) throw argument(path, 'CPU 0",
  ),
  manager('fact-7: an absent id is removed', 'cpu-order.ts', 'if (!there.has(id)) throw', 'if (false) throw'),
  manager('fact-8: an id beyond a hole is removed', 'cpu-order.ts', 'if (id >= there.size) {', 'if (false) {'),
  manager('fact-8: a present id is added', 'cpu-order.ts', 'else if (there?.has(id))', 'else if (false)'),
  manager(
    'fact-9: all vCPUs of an aarch64 guest are removed',
    'cpu-order.ts',
    'request.count >= (present as number)',
    'request.count > (present as number)',
  ),
  manager('fact-10: CPU requests have 10 s', 'protocol.ts', 'replyTimeouts.cpuMs ?? 30_000', 'replyTimeouts.cpuMs ?? 10_000'),
  manager('a reply of another type is taken', 'protocol.ts', 'if (asked !== answered) throw', 'if (false) throw'),
  manager(
    'fact-3: DEL_PCI needs no clean channel',
    'protocol.ts',
    'type === MessageType.ADD_PCI || type === MessageType.DEL_PCI',
    'type === MessageType.ADD_PCI',
  ),
  manager('+1 is a success', 'manager.ts', 'if (reply.result !== 0) throw', 'if (reply.result < 0) throw'),
  manager('another PCI domain is accepted', 'bdf.ts', 'if (domain !== 0) throw', 'if (false) throw'),

  guest('fact-1: torn requests are put together', 'session.ts', 'if (!this.#quirks.tornRequests) return', 'return'),
  guest(
    'fact-2: the reply buffer is cleared',
    'session.ts',
    'if (!this.#quirks.staleReplyBytes) this.#reply.fill(0)',
    'this.#reply.fill(0)',
  ),
  guest(
    'fact-3: a PCI success answers 0',
    'session.ts',
    'if (pci && result === 0 && this.#quirks.stalePciResult) return',
    'if (false) return',
  ),
  guest(
    'fact-4: a wrong magic answers EINVAL',
    'session.ts',
    'this.#quirks.wrongMagicSucceeds ? this.#result : EINVAL',
    'EINVAL',
  ),
  guest(
    'fact-12: a present PCI function is refused',
    'simulated/pci.ts',
    'if (this.#find(bus, devfn) >= 0) return 0',
    'if (this.#find(bus, devfn) >= 0) return ENODEV',
  ),
  guest(
    'fact-13: irq 5 is not shared',
    'simulated/mmio.ts',
    'if (irq !== SHARED_IRQ && irq === other.irq)',
    'if (irq === other.irq)',
  ),
  guest(
    'fact-14: windows are known to one connection only',
    'service.ts',
    'open: (connection) => new DeviceManagerSession(backend, connection, quirks)',
    'open: (connection) => new DeviceManagerSession({ ...backend, mmio: undefined, arch: backend.arch }, connection, quirks)',
  ),
  guest(
    'fact-15: the kernel does not complain',
    'simulated/guest.ts',
    "if (this.#old) this.#print('BUG: scheduling",
    "if (false) this.#print('BUG: scheduling",
  ),
  guest(
    'fact-16: the service is there from the first moment',
    'simulated/guest.ts',
    'return this.#booted || !this.quirks.resetWhileBooting',
    'return true',
  ),
  guest('fact-17: a paused guest answers', 'simulated/guest.ts', 'return this.#pause?.over', 'return undefined'),
  guest('fact-7: the lock is not lost', 'simulated/lock.ts', 'this.#lost = error.holdsLock', ''),
  guest(
    'each operation that waits puts a listener on the signal',
    'linux/waiting.ts',
    "addEventListener('abort', this.#onAbort, { once: true })",
    "addEventListener('abort', () => this.#onAbort(), { once: true })",
  ),
  guest('what waits for its turn is begun after an abort', 'linux/waiting.ts', '      this.#waiting.check()\n', ''),
  guest(
    'a kernel module that is unloaded answers ENOENT',
    'linux/mmio.ts',
    'return result === NO_FILE ? NO_COMMAND : result',
    'return result',
  ),
  guest(
    'a CPU that was only tried may stay online',
    'linux/cpus-x86.ts',
    'if ((await this.#cpus.switch(number, false)) !== 0)',
    'if (await this.#cpus.switch(number, false), false)',
  ),
  guest(
    'fact-10: an absent vCPU answers at once',
    'simulated/cpus-x86.ts',
    'this.#options.quirks.slowAbsentCpu ? wait(ABSENT_CPU_MS).then(giveUp) : giveUp()',
    'giveUp()',
  ),
  guest(
    'memory that another program brings online does not count',
    'linux/memory.ts',
    'now.filter((block) => !wasOnline.has(block))',
    'now.filter((block) => switched.has(block))',
  ),
  guest('a block that is online in the end is refused', 'linux/memory.ts', '.filter(([block]) => kept.has(block))', ''),
  guest(
    'memory of an earlier plug stands for what is to come at once',
    'linux/memory.ts',
    'clock.now() - changedAt >= QUIET_MS',
    'true',
  ),
  guest('memory of the boot stands for what is to come', 'linux/memory.ts', 'new Set(isHelped ? [] : online)', 'new Set(online)'),
  guest(
    'a CPU that another program was faster with is a failure',
    'linux/cpus.ts',
    'result !== 0 && (await this.#isOnline(number)) === online ? 0 : result',
    'result',
  ),
  guest(
    'a roll-back undoes what another program has done',
    'linux/cpus.ts',
    'if ((await this.#isOnline(number)) === online) continue',
    '',
  ),
  guest(
    'a CPU that comes online by itself is not found',
    'linux/cpus-x86.ts',
    'for (const [number, id] of online) numberOf.set(id, number)',
    '',
  ),
  guest('a removal that is under way answers ENOENT', 'linux/pci.ts', 'result !== 0 && result !== NO_FILE', 'result !== 0'),
  guest('an APIC id that stands for none is one', 'linux/acpi.ts', 'if (id !== noId) ids', 'ids'),
  manager('a time that no timer can wait is taken', 'check.ts', 'value >= min && value <= LONGEST_TIMER_MS', 'value >= min'),
  guest('a backend is taken as it comes', 'service.ts', '  checkBackend(backend)\n', ''),
  manager('a resize without a stop begins', 'resize.ts', "    checkFunction('stop', options.stop)\n", ''),
  manager('a wrong signal keeps the resizer busy', 'resize.ts', '    checkSignal(options.signal)\n', ''),
  manager('a reply may take for ever', 'protocol.ts', 'ms > 0 && ms < Number.POSITIVE_INFINITY', 'ms > 0'),

  server(
    'an unknown service is waited for',
    'machine/connection.ts',
    'refused: ({ end }, _state, at) => ending(end, at),',
    "refused: (_event, { rest }, at) => [{ name: 'Greeting', rest, deadline: at.now }],",
  ),
  server(
    'bytes behind the service byte are lost',
    'machine/connection.ts',
    "{ name: 'Opening', rest: chunk.subarray(1) }",
    "{ name: 'Opening', rest: new Uint8Array(0) }",
  ),
  server(
    'the service byte is waited for for ever',
    'machine/connection.ts',
    "tick: (_event, state, at) => (at.now < state.deadline ? [state] : ending({ reason: 'service-byte-timeout' }, at)),",
    'tick: (_event, state) => [state],',
  ),
  server(
    'more is read while a request is handled',
    'machine/connection.ts',
    "return this.#state.name === 'AwaitingService' || this.#state.name === 'Reading'",
    'return true',
  ),
  server(
    'a long time is a timer that fires at once',
    'connection.ts',
    'Math.min(Math.max(0, deadline - clock.now()), LONGEST_TIMER_MS)',
    'Math.max(0, deadline - clock.now())',
  ),
  server('what makes the replies is not told that nobody wants them', 'connection.ts', '[() => this.#stopWriting(), ', '['),
  server('a slow reader has no time of its own', 'connection.ts', "this.#run({ name: 'progress' })", ''),
  server(
    'a greeting that is no bytes is written',
    'connection.ts',
    "greeting = checkBytes('greeting', session.greeting)",
    'greeting = session.greeting',
  ),
  server('replies that are none are iterated', 'connection.ts', '      checkIterable(replies)\n', ''),
  server('a reply that is no bytes is written', 'connection.ts', "checkBytes('reply', result.value)", 'result.value'),
  server('a service may lack its function', 'server.ts', '.open`, service.open)', '.open`, () => {})'),
  server('a session may lack its functions', 'connection.ts', "      checkFunction('receive', session.receive)\n", ''),
  server(
    'an iterator that gives nothing is waited for',
    'connection.ts',
    "if (typeof result !== 'object' || result === null || isPromise(result))",
    'if (result === null)',
  ),
  server(
    'a fault of a service is not published',
    'connection.ts',
    '    this.#shared.onServiceError(this, { service: this.#asked, where, error })\n',
    '',
  ),
  server('a delay may be longer than a timer', 'connection.ts', '!(ms >= 0 && ms <= LONGEST_TIMER_MS)', '!(ms >= 0)'),
  server('text is taken for bytes', 'connection.ts', 'if (!(chunk instanceof Uint8Array)) {', 'if (chunk === undefined) {'),

  vsock(
    'what follows OK is lost',
    'dial.ts',
    'if (received.length > reply.end) socket.unshift(received.subarray(reply.end))',
    '',
  ),
  vsock('a reply needs no newline', 'handshake.ts', 'const canGrow = bytes.length < REPLY_MAX', 'const canGrow = true'),
  vsock(
    'EACCES is tried again',
    'errors.ts',
    "case 'EPERM':\n      return new VsockError({\n        ...init,",
    "case 'EPERM':\n      return new VsockError({\n        ...init,\n        retryable: true,",
  ),
  vsock(
    'a live server loses its path',
    'bind.ts',
    "if (answer === 'ECONNREFUSED') return unlink",
    "if (answer !== 'ENOENT') return unlink",
  ),
  vsock(
    'a command in two pieces is waited for',
    'hybrid.ts',
    "if (command.kind === 'incomplete' && this.#ways.pieces) return",
    "if (command.kind === 'incomplete') return",
  ),
  vsock(
    'a route that gives no stream is joined',
    'hybrid.ts',
    "if (stream && typeof stream.pipe !== 'function') {",
    'if (false) {',
  ),
  vsock(
    'a connection that went away before it was taken is handed over',
    'listen.ts',
    "socket.on('error', ignoreError).once('close', forget)",
    "socket.on('error', ignoreError)",
  ),
  vsock(
    "a dialer that breaks off leaves the guest's end",
    'join.ts',
    'if (one === near) guest.destroy(error)',
    'if (one === near) {}',
  ),
  vsock('a listener without descriptors left spins', 'native/listen.ts', 'this.#binding.unwatch(this.#descriptor)', ''),
  vsock('a listener leaves the place that it kept', 'native/listen.ts', 'if (this.#spare) this.#binding.close(this.#spare)', ''),
  vsock(
    'each connection puts a listener on a shared signal',
    'abort.ts',
    'waiting.get(signal) ?? listenTo(signal)',
    'listenTo(signal)',
  ),
  vsock('the last to leave a shared signal leaves the listener', 'abort.ts', "signal.removeEventListener('abort', tell)", ''),
  vsock('a plain file is a socket that nobody listens on', 'errors.ts', 'if (kind !== undefined)', 'if (false)'),
  vsock('a retry that is a number is taken for true', 'connect.ts', "typeof retry !== 'object' || ", ''),
  vsock('the sign for no CID is handed out as a CID', 'native/vsock.ts', 'cid === Cid.any ? undefined : cid', 'cid'),
  vsock('a buffer that credit cannot tell is taken', 'native/options.ts', 'value >= 1 && value <= MAX_CREDIT', 'value >= 1'),
  vsock('a backlog that cannot be is taken', 'bind.ts', 'backlog < 1 || backlog > 0x7fff_ffff', 'false'),
  vsock(
    'a command in two pieces is refused',
    'hybrid.ts',
    'profile === undefined ? { pieces: true, halfClose: true }',
    'profile === undefined ? { pieces: false, halfClose: true }',
  ),
  vsock(
    "a profile's half-close wins over the option",
    'hybrid.ts',
    'halfClose: halfClose ?? ways.halfClose',
    'halfClose: ways.halfClose',
  ),
  vsock(
    'half-close before the reply is a farewell',
    'hybrid.ts',
    'if (!this.#ways.halfClose) return onGone()',
    'return onGone()',
  ),
  vsock(
    'a dialer that closes behind its half-close is not looked for',
    'hybrid.ts',
    'unwatch = watchPeer(socket, this.#clock)',
    '',
  ),
  vsock(
    'close() ends what it cuts',
    'hybrid.ts',
    "guest.destroy(new Error('the server of its connection was closed'))",
    'guest.destroy()',
  ),
  vsock(
    'a side that takes no more is cut off',
    'ends.ts',
    "?.code !== 'EPIPE' || stream.readableEnded",
    "?.code !== 'EPIPE' || true",
  ),
  vsock('a peer is looked at once only', 'ends.ts', 'if (!error) again()', 'if (!error) return'),
  vsock(
    'a guest that never finishes outlives its dialer',
    'join.ts',
    'else stream.end(close)',
    "else stream.once('finish', close).end()",
  ),
  vhostUser(
    'a stream that its own listener destroys counts what came twice',
    'stream.ts',
    '      this.#taken = this.#pushed\n',
    '',
  ),
  vsock('an answer that reached nobody is no loss', 'join.ts', 'other.lost > 0 ?', 'false ?'),
  vsock('HTTP/2 works on the methods, and drops what waits', 'conceal.ts', 'if (isHttp2()) {', 'if (false) {'),
  vsock('HTTP/2 does not see that the guest has gone', 'conceal.ts', "socket.once('end', () => socket.end())", ''),
  vsock('TLS ends a socket below its end()', 'conceal.ts', 'if (depth > 0 || !handle) return handle', 'return handle'),
  vsock(
    'the end of a socket takes from TLS what it has not handed on',
    'conceal.ts',
    'state.autoDestroy = false',
    'state.autoDestroy = true',
  ),

  cli(
    'the EOF of a peer without half-close is the end of stdin',
    'streams/relay.ts',
    'void carrier.to.lastCall.then(() => {',
    'void carrier.to.lastCall.then(() => {\n      onSilence()',
  ),
  cli('what was not taken is a success', 'streams/relay.ts', 'if (lost && !end.broken)', 'if (false)'),
  cli('a peer that takes nothing is a success', 'streams/relay.ts', 'return stuck ?', 'return false ?'),
  cli('what a peer that has gone was to hear is no loss', 'streams/relay.ts', 'if (from.mustBeHeard) {', 'if (false) {'),
  cli(
    'a peer that takes no more fills the memory',
    'streams/relay.ts',
    'void carrier.to.refused.then((error) => carrier.refuse(error))',
    '',
  ),
  cli('a source that has closed is waited for', 'streams/party.ts', 'watchPeer(socket, clock)', ''),
  cli(
    'a stream that was cut off is a success',
    'streams/relay.ts',
    'aborted.then(() => ({ cut: true }))',
    'aborted.then(() => ({}))',
  ),
  cli(
    'a dialer that was closed is not told of',
    'streams/listener.ts',
    'if (refusal.port !== guestPort) onRefused',
    'if (false) onRefused',
  ),
  cli('an end in memory forgets what broke it', 'streams/pair.ts', 'other.destroy(error ?? undefined)', 'other.destroy()'),
  cli(
    'an end in memory that closes is a break',
    'streams/pair.ts',
    "other.once('end', () => other.destroy()).push(null)",
    'other.destroy()',
  ),

  vhostUser(
    'used transmit buffers are announced at once',
    'machine/device.ts',
    'tx.unannounced >= tx.size / UNANNOUNCED_PART',
    'true',
  ),
  vhostUser(
    'used transmit buffers are not announced however many they are',
    'machine/device.ts',
    'const UNANNOUNCED_PART = 4',
    'const UNANNOUNCED_PART = 0.5',
  ),
  vhostUser(
    'an interrupt that was put off never comes',
    'attachment.ts',
    'if (owed) this.#cancelSettle ??= this.#clock.setTimer(SETTLE_MS, () => this.#settle())',
    '',
  ),
  vhostUser(
    'an interrupt that was put off is lost when its ring stops',
    'attachment.ts',
    '        this.#settle()\n        return this.#apply',
    '        return this.#apply',
  ),
  vhostUser(
    'the guest looked meanwhile and is interrupted all the same',
    'machine/vring.ts',
    'this.#behind(this.#wish) <= this.#uninterrupted',
    'true',
  ),
  vhostUser('credit is told by quarters', 'machine/connection.ts', 'const CREDIT_PART = 2', 'const CREDIT_PART = 4'),
  vhostUser(
    'credit is told when all of it is used up',
    'machine/connection.ts',
    'const CREDIT_PART = 2',
    'const CREDIT_PART = 1',
  ),
  vhostUser(
    'resetConnections() resets nothing',
    'attachment.ts',
    '    this.#device.muxer.abandon()\n    this.#deliverNews()\n    return connections',
    '    return connections',
  ),
  vhostUser(
    'resetConnections() tells nobody',
    'attachment.ts',
    '    this.#deliverNews()\n    return connections',
    '    return connections',
  ),
  vhostUser(
    'what a ring holds when it starts waits for a kick',
    'attachment.ts',
    'if (fault !== undefined) this.#stop(fault)\n    else this.#pump()\n    this.#handlers.onChange()\n    return reply',
    'if (fault !== undefined) this.#stop(fault)\n    this.#handlers.onChange()\n    return reply',
  ),
  vhostUser(
    'a stream that is destroyed drops what it was given',
    'stream.ts',
    'this.#ending && connection.outputPending > 0',
    'false',
  ),
  vhostUser(
    'what the guest still sends holds up a stream that departs',
    'stream.ts',
    'connection.consumed(chunk.length, this.#owner.now())',
    'void chunk',
  ),
  vhostUser('a guest that reads slowly has lingerMs for all of it', 'stream.ts', 'if (outputPending < before) {', 'if (false) {'),
  vhostUser(
    'a lost write is held against the reader',
    'stream.ts',
    'if (!this.#reading) this.destroy(error)',
    'this.destroy(error)',
  ),
  vhostUser('a lost write is a success', 'stream.ts', 'callback(error ?? this.#lost ?? error)', 'callback(error)'),
  vhostUser('a stream whose bytes were lost ends in order', 'stream.ts', 'this.destroy(this.#lost ?? (', 'this.destroy(('),
  vhostUser(
    'bytes that the guest did not take were taken',
    'machine/connection.ts',
    'if (this.#outputLength > 0) this.outputLost = true',
    '',
  ),
  vhostUser(
    'a guest that ended and was then reset had not ended',
    'stream.ts',
    "(outcome !== 'done' && !connection.inputComplete)",
    "outcome !== 'done'",
  ),
  vhostUser(
    'a reset after both sides have ended cuts something short',
    'machine/connection.ts',
    'return (this.#guestShutdown & SHUTDOWN_SEND) !== 0 && (this.#sentShutdown & SHUTDOWN_SEND) !== 0',
    'return false',
  ),
  vhostUser(
    'a host that breaks off has ended in order',
    'join.ts',
    "guest.destroy(hostError ?? new Error('the stream that the guest was joined with has closed before its end'))",
    'guest.destroy()',
  ),
  vhostUser(
    'a guest that was reset has ended in order',
    'join.ts',
    'whenWritten(() => this.breakOff(host, guestError))',
    'host.end(() => host.destroy())',
  ),
  vhostUser('a host counts as left behind only when it has read all', 'join.ts', 'guest.onGone = () => this.#keep(host)', ''),
  vhostUser('a host that has closed is not read to its end', 'join.ts', "if (error?.code !== 'EPIPE' || ", 'if (true || '),
  vhostUser('host ports begin again with every VMM', 'vhost-user-vsock.ts', 'this.#nextHostPort = attachment.nextHostPort', ''),
  vhostUser('a connection that is over is let in', 'attachment.ts', "if (connection.state !== 'accepting') throw ended()", ''),
  vhostUser(
    'a connect that was aborted is open',
    'attachment.ts',
    "connection.answered && connection.outcome !== 'aborted'",
    'connection.answered',
  ),
  vhostUser('a listener without descriptors left spins', 'listener.ts', 'binding.unwatch(listener)', ''),
  vhostUser(
    'a stale path is replaced while another starter looks at it',
    'listener.ts',
    'const unlock = await lock(binding, path)',
    'const unlock = () => {}',
  ),
  vhostUser('a path that no socket can have is taken', 'vhost-user-vsock.ts', '    socketName(socketPath)\n', ''),
  vhostUser(
    'a linger that no timer can wait is taken',
    'vhost-user-vsock.ts',
    "integer('lingerMs', lingerMs, 1, 2 ** 31 - 1)",
    'lingerMs',
  ),
  vhostUser(
    "credit is told by the device's buffer alone",
    'machine/connection.ts',
    'Math.min(this.#options.bufferBytes, this.#guestAllocation) / CREDIT_PART',
    'this.#options.bufferBytes / CREDIT_PART',
  ),
  vhostUser(
    'credit that is less than half of the window is never told',
    'machine/connection.ts',
    'else if (this.#tellAt === NEVER) this.#tellAt = now + CREDIT_DELAY_MS',
    '',
  ),
  vhostUser(
    'a buffer that shrinks is not noticed',
    'machine/connection.ts',
    "if (smaller && this.state === 'open') this.#tell(NEVER)",
    '',
  ),
  vhostUser(
    'packets are not bounded',
    'machine/connection.ts',
    ' || this.#packets.size >= packetLimit(this.#guestAllocation)',
    '',
  ),
  vhostUser('a guest without credit is asked once', 'machine/connection.ts', 'this.#askAt = now + this.#askMs', ''),
  vhostUser(
    'a wish that came late is not seen at the next publication',
    'machine/vring.ts',
    'this.#uninterrupted = Math.min(this.#uninterrupted + fresh, this.size)',
    'this.#uninterrupted = fresh',
  ),
  vhostUser(
    'a chain that came before the device asked for kicks is left lying',
    'machine/vring.ts',
    '    return this.pending > 0\n',
    '    return false\n',
  ),
  vhostUser(
    'a guest that is behind is not interrupted again',
    'attachment.ts',
    'if (behind.rx) this.#interruptAgain(RX_RING, behind.rx)',
    '',
  ),
  vhostUser('a lost kick stays lost', 'attachment.ts', 'if (unkicked !== undefined) this.#lookTwice(unkicked)', ''),
  vhostUser('a paused guest is interrupted without end', 'attachment.ts', '(looks & (looks - 1)) !== 0', 'false'),
  vhostUser(
    'a busy ring hides that the other stands still',
    'attachment.ts',
    'if (rx !== undefined && rx.unannounced > 0) this.#lookAt.rx = later',
    'this.#lookAt.rx = later',
  ),
  vhostUser(
    'a closed device goes on looking',
    'attachment.ts',
    'if (!this.#closed) this.#cancelLook ??=',
    'this.#cancelLook ??=',
  ),
  vhostUser(
    'a reader waits for more than its guest may send',
    'stream.ts',
    'this.readableLength < this.#wish ? 0 : this.readableLength',
    'this.readableLength',
  ),
  vhostUser(
    'few bytes wait until their reader asks for more',
    'stream.ts',
    'if (this.#wanted && connection.inputPending > 0 && !this.destroyed) this.#hold()',
    '',
  ),
  vhostUser('a guest that sends byte by byte costs a piece each time', 'stream.ts', 'Math.max(HOLD_MS, this.#pieces)', 'HOLD_MS'),
  vhostUser(
    'the halves that a guest ends after close() are not added up',
    'machine/connection.ts',
    'if (header.op === Op.SHUTDOWN) this.#guestShutdown |= header.flags & SHUTDOWN_BOTH',
    'if (header.op === Op.SHUTDOWN) this.#guestShutdown = header.flags & SHUTDOWN_BOTH',
  ),
  vhostUser(
    'a new driver hears of what the old one was owed',
    'machine/connection.ts',
    '    // Nor one that was due before.\n    this.#due = Op.INVALID\n',
    '',
  ),
  vhostUser(
    'a device whose rings are started again stays faulted',
    'attachment.ts',
    'if (fault === undefined && this.#session.running) this.fault = undefined',
    '',
  ),
  vhostUser(
    'a ring that begins interrupts nobody',
    'machine/session.ts',
    'this.#platform.notify(this.#rings.indexOf(state))',
    '',
  ),

  qemu('a deadline of a month is over at once', 'bounded.ts', 'if (ms > LONGEST_TIMER_MS) return () => {}', ''),
  qemu('a guest is emulated without memory barriers', 'argv.ts', 'Math.max(cpus, 2)', 'cpus'),
  qemu('a line without an end is kept whole', 'console.ts', 'while (this.#partial.length > LONGEST_LINE)', 'while (false)'),
  qemu('long lines are kept all', 'console.ts', '|| this.#characters > KEPT_CHARACTERS', ''),
  qemu('a greeting may be anything', 'qmp.ts', "if (typeof greeting?.version?.qemu?.major === 'number') this", 'if (true) this'),
  qemu('any setpriv is taken for one that can', 'process.ts', 'if (status === 0) return undefined', 'return undefined'),
  qemu('each start asks setpriv again', 'process.ts', 'if (!probed.has(setpriv))', ''),
  qemu('what a QEMU lacks is not named', 'guest.ts', 'if (lacks !== undefined) return', 'if (false) return'),
  qemu('a monitor that is taken is not named', 'qmp.ts', 'handshakeMs === undefined ? ONE_CLIENT : undefined', 'undefined'),
  qemu('each client of a monitor numbers its commands from 1', 'qmp.ts', 'randomInt(2 ** 32) * 2 ** 16', '1'),
  qemu(
    'a deadline of NaN is no time at all',
    'bounded.ts',
    "typeof deadlineMs !== 'number' || Number.isNaN(deadlineMs)",
    'false',
  ),
  qemu(
    'a package that apt passes over is missing silently',
    'image/debian.ts',
    'if (!names.every((name) => found.includes(name))) await refuseUnknown(names, apt)',
    '',
  ),
  qemu('what is no Debian is told to install apt', 'image/tools.ts', 'if (missing.some(isDebians)) return', 'if (false) return'),
  qemu('a wait takes a signal as it comes', 'bounded.ts', '    checkSignal(what, signal)\n', ''),
  qemu('a guest is booted with whatever signal', 'guest.ts', "  checkSignal('boot', signal)\n", ''),
  qemu('a folder is a program', 'process.ts', 'return statSync(path).isFile()', 'return true'),
  qemu('the last 0 lines are all of them', 'console.ts', 'lines.slice(Math.max(0, lines.length - count))', 'lines.slice(-count)'),

  shim(
    'a QEMU that cannot be looked at goes on',
    'qemu/machine.ts',
    '      await qemu.close()\n      throw error',
    '      throw error',
  ),
  shim(
    "a QEMU's end is its successor's",
    'qemu/machine.ts',
    'const isCurrent = () => this.#qemu === qemu && !this.#dead',
    'const isCurrent = () => true',
  ),
  shim("a launch's failure is its successor's", 'qemu/machine.ts', 'if (this.launched === launched) this.#die', 'this.#die'),
  shim('a QEMU is launched beside its predecessor', 'qemu/machine.ts', '    await last?.close()\n', ''),
  shim(
    'a service that greets early is not heard',
    'qemu/machine.ts',
    '    this.#serves = true',
    '    if (this.#up) this.#serves = true',
  ),
  shim(
    'memory that the guest was asked for is forgotten',
    'qemu/machine.ts',
    'return bytes === this.memory && this.#requested === this.#plugged',
    'return bytes === this.memory',
  ),
  shim(
    "a microvm's vCPU is lost with its guest",
    'qemu/machine.ts',
    "if (this.#dead && this.#type !== 'microvm') continue",
    'if (this.#dead) continue',
  ),
  shim(
    'a PCI device that may have been plugged in is forgotten',
    'qemu/machine.ts',
    'if (mayBeDone(error)) await this.unplugPci(device)',
    '',
  ),
  shim(
    'a machine is stopped by killing its QEMU',
    'qemu/machine.ts',
    '    await this.#qemu?.close()\n    this.#stop',
    '    this.#stop',
  ),
  shim('a comma ends a path', 'qemu/hardware.ts', "return text.replaceAll(',', ',,')", 'return text'),
  shim('vCPUs that were added before a failure stay', 'vm/vm.ts', 'else await this.#takeBack(present.length, error)', ''),
  shim(
    'a drive waits for another guest than it was plugged into',
    'vm/vm.ts',
    'await this.#manager.addMmio(window, { signal })',
    'await this.#manager.addMmio(window)',
  ),
  shim(
    'a reset guest is the same guest',
    'qemu/machine.ts',
    "      this.#gone.abort(new Error('the guest was reset'))\n      this.#gone = new AbortController()\n",
    '',
  ),
  shim(
    'a window that is refused once is not told of again',
    'vm/reconciler.ts',
    'if (!refused) this.#settledResets = resets',
    'this.#settledResets = resets',
  ),
  shim(
    'what a failed reconcile has done is never told',
    'vm/reconciler.ts',
    'return { ...done,',
    'return { restarted, settled: [],',
  ),
  shim(
    'a guest is believed whatever it says',
    'qemu/agent.ts',
    'if (result.success) return result.output',
    'return value as AgentReport',
  ),
  shim(
    'a connection is idle although a request is under way',
    'api/server.ts',
    'if (--this.#requests === 0) this.#wait()',
    'this.#wait()',
  ),
  shim(
    'an unplug that is under way is not waited for',
    'qemu/plugging.ts',
    '|| !/in the process of unplug/.test(error.message)',
    '',
  ),
  shim(
    'an unplug that nobody heard of is not seen',
    'qemu/plugging.ts',
    "return await qmp.execute('qom-list', { path }).then(() => false, isNotFound)",
    'return false',
  ),
  shim('what the guest has let go of by itself cannot be removed', 'vm/vm.ts', 'if (!knowsNone ||', 'if (true ||'),
  shim(
    'a window that the guest may use is taken away',
    'vm/vm.ts',
    'guest !== undefined && !guest.mmio.some',
    '!guest?.mmio.some',
  ),
  shim('a vCPU that is as it was to be is a failure', 'vm/vm.ts', 'if (done === undefined) throw error', 'throw error'),

  testkit('a fault that does not exist is planned', 'fault-plan.ts', "  checkNames('fault plan', plan, ['read', 'write'])\n", ''),
  testkit('a reply that cannot be encoded is thrown', 'fake-connection.ts', 'async reply(', 'reply('),
]

const args = process.argv.slice(2)
const json = args.find((arg) => arg.startsWith('--json='))?.slice('--json='.length)
const wanted = args.filter((arg) => !arg.startsWith('--'))
const chosen = faults.filter(({ name }) => wanted.every((word) => name.includes(word)))
const broken = chosen.filter(
  ({ file, find }) => !existsSync(`${root}${file}`) || readFileSync(`${root}${file}`, 'utf8').split(find).length < 2,
)
for (const { name, file } of broken) console.log(`STALE    ${name}: its line is no longer in ${file}`)

if (chosen.length === 0) {
  console.error(`mutants: no fault's name contains ${wanted.map((word) => JSON.stringify(word)).join(' and ')}`)
  process.exit(2)
}
if (args.includes('--stale')) process.exit(broken.length === 0 ? 0 : 1)

let [noticed, alive, cutOff] = [0, broken.length, 0]
const started = performance.now()
const faulty = chosen.filter((fault) => !broken.includes(fault))
const projects = [...new Set(faulty.flatMap((fault) => fault.projects))]
const without = faulty.length === 0 ? undefined : await traceTests(projects, faulty)
if (without?.green === false) {
  console.error(`mutants: the tests of ${projects.join(', ')} fail without any fault; run npm test first`)
  for (const failure of without.failures) console.error(`  ${failure}`)
  process.exit(1)
}
if (without !== undefined) console.log(`mutants: without faults ${without.files.size} test files pass, after ${seconds()}`)

/** Puts one fault in and says what its tests make of it. */
async function judge({ name, projects, hangs, ...mutant }, tests) {
  const { failed, cutOff: late } =
    tests.length === 0 ? { failed: 0, cutOff: false } : await runTests(projects, mutant, tests, without)
  if (failed > 0) {
    noticed++
    console.log(`noticed  ${name}`)
  } else if (late && hangs) {
    noticed++
    console.log(`noticed  ${name} (hangs)`)
  } else if (late) {
    cutOff++
    console.log(`CUT OFF  ${name}: no test failed in time`)
  } else {
    alive++
    console.log(`SURVIVED ${name}${tests.length === 0 ? ': no test runs its line' : ''}`)
  }
}

const turns = faulty.entries()
async function takeTurns() {
  for (const [id, fault] of turns) await judge(fault, without.testsOf(id))
}
await Promise.all(Array.from({ length: availableParallelism() }, takeTurns))

function seconds() {
  return `${Math.round((performance.now() - started) / 1000)} s`
}

console.log(`mutants: ${noticed} noticed, ${alive} alive, ${cutOff} cut off, in ${seconds()}`)
if (json !== undefined) writeFileSync(json, JSON.stringify({ numPassedTests: noticed, numFailedTests: alive + cutOff }))
process.exitCode = alive + cutOff === 0 ? 0 : 1

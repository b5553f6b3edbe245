import { Socket } from 'node:net'

// TLS takes the handle of a net.Socket and uses it below JavaScript: its end is the handle's shutdown, which `_final` does not see. Where
// a stream shows no handle, TLS calls its methods. So a socket whose end() has to wait shows its handle only to net.Socket's own code.
// HTTP/2 takes the handle too, but ends the socket by end(). Through methods HTTP/2 drops what a slow reader has not taken when both
// directions have ended, so a socket shows its handle to HTTP/2.

type Prototype = Record<string, unknown>
type Method = (this: unknown, ...args: unknown[]) => unknown

/** The methods of net.Socket that use the handle. Only `_onTimeout` calls user code before it returns, by an event. */
const METHODS = [
  '_read',
  '_writeGeneric',
  '_final',
  '_destroy',
  '_onTimeout',
  '_getpeername',
  '_getsockname',
  'ref',
  'unref',
  'setNoDelay',
  'setKeepAlive',
  'setTypeOfService',
  'getTypeOfService',
  'resetAndDestroy',
]
const GETTERS = ['pending', 'bytesRead', 'bytesWritten', 'bufferSize']

/** From the object, or from what it inherits of. */
function getterOf(object: object | null, name: string): (() => unknown) | undefined {
  if (object === null) return undefined
  return Object.getOwnPropertyDescriptor(object, name)?.get ?? getterOf(Object.getPrototypeOf(object), name)
}

let depth = 0

/** Runs `fn`. Concealed sockets show it their handle. */
export function withHandle<T>(fn: () => T): T {
  depth++
  try {
    return fn()
  } finally {
    depth--
  }
}

/** The prototype for sockets of this class whose handle is concealed. */
export function concealing<T extends Socket>(shown: T): T {
  const members: PropertyDescriptorMap = {}
  for (const name of METHODS) {
    const method = (shown as unknown as Prototype)[name] as Method | undefined
    // Not every version of Node has all of them.
    if (typeof method === 'function')
      members[name] = hidden(function (this: unknown, ...args: unknown[]) {
        depth++
        try {
          return method.apply(this, args)
        } finally {
          depth--
        }
      })
  }
  for (const name of GETTERS) {
    const get = getterOf(shown, name)
    if (!get) continue
    members[name] = {
      configurable: true,
      get(this: Socket) {
        return withHandle(() => get.call(this))
      },
    }
  }

  const { get, set } = Object.getOwnPropertyDescriptor(Socket.prototype, '_handle') ?? {}
  const once = shown.once as unknown as Method
  const emit = shown.emit as unknown as Method
  const asked = new WeakSet<Socket>()
  if (get && set)
    members._handle = {
      configurable: true,
      set,
      get(this: Socket) {
        const handle = get.call(this)
        if (depth > 0 || !handle) return handle
        if (isAsking('http2')) {
          // It is shown from here on.
          Object.setPrototypeOf(this, shown)
          return handle
        }
        asked.add(this)
        process.nextTick(() => asked.delete(this))
        return null
      },
    }
  // For TLS a socket without a handle is still connecting: it waits for the event.
  members.once = hidden(function (this: Socket, event: string, listener: () => void) {
    once.call(this, event, listener)
    if (event === 'connect' && asked.has(this)) {
      keepOpen(this)
      process.nextTick(() => {
        if (!this.listeners('connect').includes(listener)) return
        this.off('connect', listener)
        if (!this.destroyed) listener.call(this)
      })
    }
    return this
  })
  // The listeners of its events are not net.Socket's own code.
  members.emit = hidden(function (this: Socket, ...args: unknown[]) {
    const own = depth
    depth = 0
    try {
      return emit.apply(this, args)
    } finally {
      depth = own
    }
  })
  // A socket that connects again is like a new socket until it is connected.
  members.connect = hidden(function (this: Socket, ...args: unknown[]) {
    Object.setPrototypeOf(this, shown)
    once.call(this, 'connect', () => Object.setPrototypeOf(this, prototype))
    return (shown.connect as unknown as Method).apply(this, args)
  })
  const prototype: T = Object.create(shown, members)
  return prototype
}

/**
 * When the stream below TLS closes, TLS drops what it has deciphered and not handed on yet. When TLS closes, it destroys that stream.
 * So the end of both directions does not close this stream. An error still does.
 */
export function keepOpen(socket: Socket): void {
  const state = (socket as unknown as { _readableState: { autoDestroy: boolean } })._readableState
  state.autoDestroy = false
}

const ASKING = { http2: 'node:internal/http2/', tls: 'node:_tls_wrap' }

/** Whether Node's HTTP/2 or TLS is asking. Only the stack tells. */
export function isAsking(who: keyof typeof ASKING): boolean {
  const { prepareStackTrace, stackTraceLimit } = Error
  try {
    Object.assign(Error, { prepareStackTrace: undefined, stackTraceLimit: 4 })
    return new Error().stack?.includes(ASKING[who]) === true
  } finally {
    Object.assign(Error, { prepareStackTrace, stackTraceLimit })
  }
}

function hidden(value: unknown): PropertyDescriptor {
  return { value, writable: true, configurable: true }
}

import { faultsIn } from './faults-in.mjs'

const trace = faultsIn('trace')

export default [
  trace('a message that is not complete is cut', 'stream.ts', 'if (given < MESSAGE_SIZE && !final) return undefined', ''),
  trace('bytes before a magic are a message', 'conversation/framer.ts', 'if (next > 0) return this.#garbage(next)', ''),
  trace(
    'another stream is wrong upcall',
    'conversation/conversation.ts',
    'if (!this.#raw && this.#isForeign(direction)) this.#becomeRaw(now)',
    '',
  ),
  trace(
    'a reply belongs to the newest request',
    'conversation/conversation.ts',
    'const request = this.#requests.shift()',
    'const request = this.#requests.pop()',
  ),
  trace('bytes after the message are a part of it', 'explain.ts', 'if (bytes.length > MESSAGE_SIZE) {', 'if (false) {'),
  trace('each message connects', 'pcap/packets.ts', 'if (this.#connected) return []', ''),
  trace('a packet may be as long as its header says', 'pcap/classic.ts', 'if (kept > LONGEST_PACKET)', 'if (false)'),
  trace('a block may be as short as its header says', 'pcap/ng.ts', 'if (length < least || length % 4 !== 0)', 'if (false)'),
  trace('a slow disk fills the memory', 'pcap/file.ts', ' || this.#waitingBytes + record.length > this.#most', ''),
  trace('half of a packet stays', 'pcap/file.ts', 'await this.#handle.truncate(this.#end).catch(() => {})', ''),
  trace(
    'a packet that is cut has its length',
    'pcap/writer.ts',
    'view.setUint32(12, bytes.length, true)',
    'view.setUint32(12, kept.length, true)',
  ),
  trace('each device is captured', 'pcap/devices.ts', 'if (wanted !== undefined && !wanted.has(socketPath)) return', ''),
  trace('a packet between guests is captured twice', 'pcap/ring-packets.ts', 'if (op !== RST) return false', ''),
  trace('flows are remembered for ever', 'pcap/ring-packets.ts', 'if (this.#flows.size > MOST_FLOWS)', 'if (false)'),
  trace('a header may be longer than its packet', 'pcap/vsock-packet.ts', 'if (length > left) throw', 'if (false) throw'),
  trace('what came with the reply to CONNECT is lost', 'proxy.ts', 'stream.unshift(early)', ''),
  trace("another client's messages are told, too", 'client.ts', 'if ((trace.client as unknown) !== client) return', ''),
]

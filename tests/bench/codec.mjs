import { decodeReply, encodeReply, encodeRequest } from '@upcall/wire'
import { Bench } from 'tinybench'

const request = { type: 'ADD_MMIO', base: 0xd000_0000n, size: 0x1000n, irq: 5 }
const into = new Uint8Array(1024)
const reply = encodeReply({ type: 'ADD_CPU', result: 0, apicIdIndex: 2 }, 'x86_64')

/** The same message written by hand through a DataView into a fresh array: what one would write without the codec. */
function byHand() {
  const bytes = new Uint8Array(1024)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, 0x444d0100, true)
  view.setUint32(4, 24, true)
  view.setUint32(8, 5, true)
  view.setBigUint64(16, 0xd000_0000n, true)
  view.setBigUint64(24, 0x1000n, true)
  view.setUint32(32, 5, true)
  return bytes
}

/** Bytes of heap and buffers that `n` calls leave behind before anything is collected. */
function allocated(fn, n = 2_000) {
  globalThis.gc?.()
  const before = process.memoryUsage()
  for (let i = 0; i < n; i++) fn()
  const after = process.memoryUsage()
  return Math.max(0, (after.arrayBuffers - before.arrayBuffers) / n)
}

export async function bench() {
  const cases = {
    'by hand (baseline)': byHand,
    encodeRequest: () => encodeRequest(request, 'x86_64'),
    'encodeRequest into a buffer': () => encodeRequest(request, 'x86_64', into),
    decodeReply: () => decodeReply(reply, 'x86_64'),
  }
  const suite = new Bench({ time: 300 })
  for (const [name, fn] of Object.entries(cases)) suite.add(name, fn)
  await suite.run()
  const baseline = suite.tasks[0].result.latency.p50
  return suite.tasks.map(({ name, result }) => ({
    case: name,
    'time, ratio to baseline': (result.latency.p50 / baseline).toFixed(2),
    'buffer bytes per call': Math.round(allocated(cases[name])),
  }))
}

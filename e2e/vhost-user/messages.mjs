// SOCK_SEQPACKET between the host and a program in the guest (messages.c) that sends every message back.
import assert from 'node:assert/strict'
import { GUEST, HOST } from './scene.mjs'

/** In bytes: 1 to 200 KB, with those at which packets and kernels do something else. */
const LENGTHS = [1, 2, 127, 128, 129, 575, 576, 1024, 3999, 4000, 4096, 16_384, 65_535, 65_536, 65_537, 100_000, 200_000]
/** Linux counts each against the guest's buffer as 576 bytes: 455 of them fill it (CVE-2026-23086's fix, 6.12). */
const SMALL = 2000

/** Whole messages there and back, with MSG_EOR, from a connection of either end; each end's half-close is seen by the other. */
export async function messages(scene) {
  for (const [begun, dial] of [
    ['host', dialGuest],
    ['guest', dialledByGuest],
  ]) {
    const { stream, ended } = await dial(scene, 0)
    assert.equal(stream.maxMessageBytes, 256 * 1024, begun)
    await assert.rejects(stream.send(new Uint8Array(256 * 1024 + 1)), { code: 'EMSGSIZE' })
    const sent = LENGTHS.map((length, i) => message(i, length))
    await exchanged(stream, sent)
    const bytes = LENGTHS.reduce((sum, length) => sum + length)
    await ends(stream, ended, `${LENGTHS.length} messages, ${bytes} bytes`)
  }
  return `1 B to 200 KB, ${LENGTHS.length} each way from either end; longer ones are refused`
}

/** More small messages than the guest's socket takes while its program reads nothing. */
export async function smallMessages(scene, seconds) {
  const { stream, ended } = await dialGuest(scene, seconds)
  const sent = Array.from({ length: SMALL }, (_, i) => message(i, 1 + ((i * 37) % 300)))
  await exchanged(stream, sent)
  const bytes = sent.reduce((sum, { data }) => sum + data.length, 0)
  await ends(stream, ended, `${SMALL} messages, ${bytes} bytes`)
  return `${SMALL} messages of 1 to 300 bytes, there and back`
}

async function dialGuest({ vm, device }, seconds) {
  const listens = vm.event('messages listens')
  const ended = vm.run('messages', { mode: 'listen', port: GUEST.messages, seconds })
  ended.catch(() => {})
  await Promise.race([listens, ended])
  return { stream: await device.connectSeqpacket(GUEST.messages), ended }
}

async function dialledByGuest(scene, seconds) {
  const incoming = new Promise((resolve) => (scene.onMessages = resolve))
  const ended = scene.vm.run('messages', { mode: 'connect', port: HOST.messages, seconds })
  ended.catch(() => {})
  const stream = await Promise.race([incoming, ended.then(() => assert.fail('the program has ended'))])
  return { stream, ended }
}

/** Every fifth ends a record. No two are alike. */
function message(number, length) {
  const data = new Uint8Array(length)
  for (let i = 0; i < length; i++) data[i] = (number * 131 + i * 7 + (i >> 8)) & 0xff
  return { data, eor: number % 5 === 0 }
}

async function exchanged(stream, sent) {
  const sending = Promise.all(sent.map(({ data, eor }) => stream.send(data, { eor })))
  sending.catch(() => {})
  for (const [i, { data, eor }] of sent.entries()) {
    const got = await stream.receive({ signal: AbortSignal.timeout(60_000) })
    assert.equal(got?.data.length, data.length, `the length of message ${i}`)
    assert.ok(Buffer.from(data).equals(got.data), `the bytes of message ${i}`)
    assert.equal(got.eor, eor, `MSG_EOR of message ${i}`)
  }
  await sending
}

async function ends(stream, ended, expected) {
  const signal = AbortSignal.timeout(60_000)
  stream.end()
  const last = await stream.receive({ signal })
  assert.deepEqual([new TextDecoder().decode(last.data), last.eor], [expected, true])
  assert.equal(await stream.receive({ signal }), undefined)
  await stream.closed
  assert.equal(stream.errored, null)
  assert.equal((await ended).last, expected)
}

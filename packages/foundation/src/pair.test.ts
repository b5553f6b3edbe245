import type { Readable } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { joinedPair } from './pair.js'

async function all(stream: Readable): Promise<string> {
  let text = ''
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) text += chunk
  return text
}

async function closed(stream: Readable): Promise<void> {
  if (!stream.closed) await new Promise((resolve) => stream.once('close', resolve))
}

test('two ends in memory break together', async () => {
  const [a, b] = joinedPair()
  a.destroy(new Error('reset'))
  await closed(b)
  expect(b.errored?.message).toBe('reset')
})

test('two ends in memory close together, and the other one has heard everything', async () => {
  const [a, b] = joinedPair()
  a.write('all there is')
  a.destroy()
  await turn()
  expect(await all(b)).toBe('all there is')
  await closed(b)
  expect(b.errored).toBeNull()
})

test('an end in memory that has heard the other one end closes with it', async () => {
  const [a, b] = joinedPair()
  a.end('all there is')
  expect(await all(b)).toBe('all there is')
  a.destroy()
  await closed(b)
  expect(b.errored).toBeNull()
})

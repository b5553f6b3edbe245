import { duplexPair } from 'node:stream'
import { expect, it } from 'vitest'
import { ChecksummedStream } from './stream.js'

it('is the same both ways, or fails', async () => {
  const [ours, echo] = duplexPair()
  echo.pipe(echo)
  const stream = new ChecksummedStream(ours)
  await stream.receivedMore(64 * 1024)
  expect(stream.flow.received).toBeGreaterThan(64 * 1024)
  const { bytes } = await stream.finish()
  expect(bytes).toBe(stream.flow.sent)
  await expect(stream.receivedMore(bytes)).rejects.toThrow(/stopped/)
})

it('notices a byte that changed', async () => {
  const [ours, echo] = duplexPair()
  let spoilt = false
  echo.on('data', (chunk: Buffer) => {
    if (!spoilt) chunk[0]! ^= 1
    spoilt = true
    echo.write(chunk)
  })
  echo.on('end', () => echo.end())
  const stream = new ChecksummedStream(ours)
  await expect.poll(() => stream.flow.received).toBeGreaterThan(64 * 1024)
  await expect(stream.finish()).rejects.toThrow(/bytes went out with/)
})

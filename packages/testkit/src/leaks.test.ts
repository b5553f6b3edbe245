import { createServer, type Server } from 'node:net'
import { expect, it } from 'vitest'
import { withoutLeaks } from './leaks.js'

function listening(): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject)
    server.listen(`\0upcall-testkit-leaks-${process.pid}`, () => resolve(server))
  })
}

it('lets through what is closed in time, and its result', async () => {
  const result = await withoutLeaks(async () => {
    const server = await listening()
    server.close()
    return 'through'
  })
  expect(result).toBe('through')
})

it('notices what stays open', async () => {
  let server: Server | undefined
  const leaking = withoutLeaks(
    async () => {
      server = await listening()
    },
    { timeoutMs: 1 },
  )
  await expect(leaking).rejects.toThrow(/1 descriptors.*1 PipeWrap/)
  server?.close()
})

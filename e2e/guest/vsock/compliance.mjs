// The suite every transport passes, unchanged, over the kernel's own AF_VSOCK.
import { test } from 'node:test'
import { transportCompliance, vsockTransport } from '@upcall/testkit'

/** Emulation is slow; what hangs is found all the same. */
const deadlineMs = 60_000

for (const { name, run } of transportCompliance(vsockTransport(), { timeoutMs: deadlineMs })) {
  test(`compliance: ${name}`, { timeout: deadlineMs + 5_000 }, ({ signal }) => run(signal))
}

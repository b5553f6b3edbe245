// What Go's test binaries print with -test.v, and what it has to be. For the host and for guests.
import assert from 'node:assert/strict'

/** The tests of nettest.TestConn. */
export const TEST_CONN = [
  ...['BasicIO', 'PingPong', 'RacyRead', 'RacyWrite', 'ReadTimeout', 'WriteTimeout', 'PastTimeout', 'PresentTimeout'],
  ...['FutureTimeout', 'CloseTimeout', 'ConcurrentMethods'],
]

/** Those of mdlayher/vsock 1.4.0 that need a kernel with AF_VSOCK, in a guest. */
const INTEGRATION = [
  ...['ContextIDGuest', 'ListenerUnblockAcceptTimeout', 'ConnShutdown', 'ConnSyscallConn', 'ConnDialNoListener'],
  ...['FileListenerOK', 'FileListenerInvalid', 'NettestTestConn'],
]
/** One is for a host; the other waits for a change of x/net. They skip themselves. */
const SKIPPED = ['ContextIDHost', 'NettestTestListener']

/** The names of the tests that passed, without their beginning, in order. */
export function passed(stdout, beginning) {
  return named(stdout, 'PASS', beginning)
}

/** All of mdlayher/vsock's own integration tests have passed. */
export function checkIntegration(stdout, stderr = '') {
  const output = `${stdout}${stderr}`
  assert.deepEqual(
    passed(stdout, 'TestIntegration').filter((name) => !name.includes('/')),
    INTEGRATION,
    output,
  )
  assert.deepEqual(named(stdout, 'SKIP', 'TestIntegration'), SKIPPED, output)
  assert.deepEqual(passed(stdout, 'TestIntegrationNettestTestConn/'), TEST_CONN, output)
}

function named(stdout, outcome, beginning) {
  return [...stdout.matchAll(new RegExp(`^ *--- ${outcome}: ${beginning}(\\S+)`, 'gm'))].map(([, name]) => name)
}

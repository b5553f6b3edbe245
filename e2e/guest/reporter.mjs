// A reporter of node:test: one JSON object per line, as e2e/guest-tests.mjs reads them.
import { inspect } from 'node:util'

/** What node:test itself says at the end; the host counts for itself. */
const SUMMARY = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) \d/

export default async function* reporter(source) {
  for await (const { type, data } of source) {
    const suite = data.details?.type === 'suite'
    if (type === 'test:start') yield line({ event: 'start', name: data.name })
    else if (type === 'test:pass' && !suite) yield line({ event: 'pass', name: data.name, ms: data.details.duration_ms })
    else if (type === 'test:fail' && !suite)
      yield line({ event: 'fail', name: data.name, ms: data.details.duration_ms, text: reason(data.details.error) })
    else if (type === 'test:fail' && data.details.error?.failureType !== 'subtestsFailed')
      yield line({ event: 'fail', name: `suite ${data.name}`, ms: 0, text: reason(data.details.error) })
    else if (type === 'test:diagnostic' && !SUMMARY.test(data.message)) yield line({ event: 'note', text: data.message })
  }
}

function line(value) {
  return `${JSON.stringify(value)}\n`
}

/** What was thrown, not node:test's own wrapping of it. */
function reason(error) {
  return inspect(error?.cause ?? error, { breakLength: 120 })
}

// Adds up what the reporters counted, and fails when a suite ran fewer tests than its floor: a suite that silently lost half its
// tests must not look green.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const folder = process.argv[2]
const floors = JSON.parse(readFileSync(new URL('floors.json', import.meta.url), 'utf8'))
let [passed, failed] = [0, 0]

for (const [suite, floor] of Object.entries(floors)) {
  const file = join(folder, `${suite}.json`)
  const report = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : { numPassedTests: 0, numFailedTests: 0 }
  console.log(`${suite}: ${report.numPassedTests} passed, ${report.numFailedTests} failed, at least ${floor} expected`)
  passed += report.numPassedTests
  failed += report.numFailedTests
  if (report.numPassedTests < floor) {
    console.log(`${suite}: too few tests ran`)
    failed++
  }
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1

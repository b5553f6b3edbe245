// Tells mutants.mjs how a run goes, at once and line by line, so that what was seen before a run is cut off is known.
import { appendFileSync } from 'node:fs'

export default class MutantReporter {
  #told = new Set()

  onInit(vitest) {
    const longest = (times) => Math.max(...times)
    const configs = vitest.projects.map(({ config }) => config)
    this.#tell({
      testMs: longest(configs.map(({ testTimeout }) => testTimeout)),
      hookMs: longest(configs.map(({ hookTimeout }) => hookTimeout)),
    })
  }

  onTestRunStart() {
    this.#tell({ started: Date.now() })
  }

  onTestCaseResult(test) {
    if (test.result().state !== 'failed' || this.#told.has(test.id)) return
    this.#told.add(test.id)
    this.#tell({ failed: `${test.module.moduleId}: ${test.fullName}`, errors: messages(test) })
  }

  onTestModuleEnd(module) {
    const { environmentSetupDuration, prepareDuration, collectDuration, setupDuration, duration } = module.diagnostic()
    const ms = environmentSetupDuration + prepareDuration + collectDuration + setupDuration + duration
    const longest = Math.max(0, ...[...module.children.allTests()].map((test) => test.diagnostic()?.duration ?? 0))
    const errors = messages(module)
    this.#tell({ file: module.moduleId, ms, longest, errors })
    // A file that cannot be loaded has no tests. If it has, the errors are those of its hooks (beforeAll, afterAll).
    if (errors.length > 0 && module.children.size > 0) this.#hookFailed(module)
  }

  onTestSuiteResult(suite) {
    if (suite.errors().length > 0) this.#hookFailed(suite)
  }

  #hookFailed(suite) {
    const name = suite.type === 'module' ? suite.moduleId : `${suite.module.moduleId}: ${suite.fullName}`
    this.#tell({ failed: `${name}: a hook`, errors: messages(suite) })
  }

  onTestRunEnd(modules, errors, reason) {
    // vitest does not report a concurrent test by itself if its failure ends the run (--bail).
    for (const module of modules) for (const test of module.children.allTests()) this.onTestCaseResult(test)
    this.#tell({ reason, errors: errors.map(({ message }) => message) })
  }

  #tell(what) {
    appendFileSync(process.env.UPCALL_MUTANT_REPORT, `${JSON.stringify(what)}\n`)
  }
}

/** What went wrong in a test, a suite or a file. */
function messages(entity) {
  const errors = entity.type === 'test' ? entity.result().errors : entity.errors()
  return errors.map(({ message }) => message)
}

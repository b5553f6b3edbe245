// Runs before each test file in the run of mutants.mjs without faults: writes down which faults' places the file's tests have run.
import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { afterAll, expect } from 'vitest'

// The first hook is the last to be called.
afterAll(() => {
  const { testPath } = expect.getState()
  const seen = [...(globalThis.upcallMarks ?? [])]
  writeFileSync(`${process.env.UPCALL_MUTANT_MARKS_FOLDER}/${randomUUID()}.json`, JSON.stringify({ file: testPath, seen }))
})

// Tells the console which test begins, at once: the reporter comes to it a turn of the event loop later, which a program that spins or a
// kernel that panics does not grant.
import { writeSync } from 'node:fs'
import { beforeEach } from 'node:test'

beforeEach(({ name }) => writeSync(2, `test: ${name}\n`))

import type { Command } from 'commander'
import type { Action, Context } from '../context.js'
import { machineChecks, type Needs } from '../doctor/checks.js'
import { examine } from '../doctor/examine.js'
import type { Finding, Verdict } from '../doctor/finding.js'
import type { System } from '../doctor/system.js'
import { checkTarget } from '../doctor/target.js'
import { thisSystem } from '../doctor/this-system.js'
import { Exit } from '../exit.js'
import { targetOf } from '../options.js'
import type { Paint } from '../output.js'

/** The time of each check, without `--timeout`. */
const CHECK_MS = 5_000

/** Steps of the target that may each take that time: the socket file with its listener, the connection, the greeting. */
const TARGET_STEPS = 3

export function addDoctorCommand(program: Command, action: Action): void {
  program
    .command('doctor')
    .description('look at this machine, and at the guest of --target; say what is missing and what to do')
    .addHelpText(
      'after',
      `
Looks at Node, the addons, AF_VSOCK and its modules, QEMU and the programs for images. With --target (or
UPCALL_TARGET) also at the guest: the socket file, its permissions, the listener, CONNECT and the greeting. Nothing is
changed, no request is sent, and AF_VSOCK is not connected. --timeout limits each check (default: 5s).

✓ works. ! is missing, and only some uses need it. ✗ has to be mended. With --json each check is one object:
"check", "verdict" (ok, warning, failure), "what", and "next".

Exit status: 0 no ✗, 3 at least one.

Examples:
  $ upcall doctor
  $ upcall --target hvsock:///run/vm.sock:219 doctor
  $ upcall --json doctor | jq -r 'select(.verdict != "ok") | .next'`,
    )
    .action(action(doctor))
}

async function doctor(context: Context): Promise<void> {
  const { io, options, output, exit, timeoutMs = CHECK_MS } = context
  const target = options.target || io.env.UPCALL_TARGET ? targetOf(options, io.env) : undefined
  const needs: Needs = { vsock: target?.transport === 'vsock' }
  const checks = [
    ...Object.entries(machineChecks).map(([name, check]) => ({ name, check, limits: { timeoutMs } })),
    ...(target
      ? [
          {
            name: 'target',
            check: (system: System) => checkTarget(system, target),
            // Longer than all its steps, so that a guest which is silent ends its step and not what the others have found.
            limits: { timeoutMs: TARGET_STEPS * timeoutMs, needed: true },
          },
        ]
      : []),
  ]
  for (const { name, check, limits } of checks) {
    if (io.signal.aborted) return
    using progress = output.progress(`doctor: ${name}`)
    const findings = await examine(name, (signal) => check(thisSystem(signal, timeoutMs), needs), {
      signal: io.signal,
      ...limits,
    })
    progress[Symbol.dispose]()
    for (const finding of findings) {
      if (finding.verdict === 'failure') exit.add(Exit.notSent)
      await output.result({ op: 'doctor', ...finding }, (paint) => lineOf(finding, paint))
    }
  }
}

const marks = { ok: ['green', '✓'], warning: ['yellow', '!'], failure: ['red', '✗'] } as const satisfies Record<Verdict, unknown>

function lineOf({ check, verdict, what, next }: Finding, paint: Paint): string {
  const [colour, mark] = marks[verdict]
  const head = `${paint(colour, mark)} ${check}: ${what}`
  return next === undefined ? head : `${head}\n    ${paint('grey', next)}`
}

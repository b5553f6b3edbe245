import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { upcall } from '../../testing/harness.js'
import { formatted, headed, text } from './mdoc.js'

async function page(): Promise<string> {
  const { status, stdout } = await upcall(['__man'], { env: { SOURCE_DATE_EPOCH: '0' } })
  expect(status).toBe(0)
  return stdout.text
}

const mandoc = (input: string, ...args: string[]) => spawnSync('mandoc', args, { input, encoding: 'utf8' })

test('the page has each command with its options, and the sections of a manual page', async () => {
  const mdoc = await page()
  expect(mdoc.startsWith('.Dd January 1, 1970\n.Dt UPCALL 1\n.Os\n.Sh NAME\n')).toBe(true)
  expect(mdoc.match(/^\.Sh .*/gm)).toEqual(
    ['NAME', 'SYNOPSIS', 'DESCRIPTION', 'COMMANDS', 'ENVIRONMENT', 'FILES', 'EXIT STATUS', 'EXAMPLES', 'SEE ALSO'].map(
      (name) => `.Sh ${name}`,
    ),
  )
  for (const command of ['status', 'cpu add', 'mmio remove', 'vsock device', 'completion', 'doctor'])
    expect(mdoc).toContain(`\n.Ss "upcall ${command} `)
  expect(mdoc).toContain('\n.It Fl t , Fl \\-target Ar address\n')
  expect(mdoc).toContain('\n.It Fl \\-apic\\-version Ar n\n')
  expect(mdoc).not.toContain('__complete')
})

test('mandoc reads it without a warning, and shows what the help says', async (context) => {
  if (spawnSync('mandoc', ['-V']).error) context.skip('mandoc is not installed: apt-get install mandoc')
  const mdoc = await page()
  const { stdout, stderr } = mandoc(mdoc, '-T', 'lint', '-W', 'warning')
  expect(`${stdout}${stderr}`).toBe('')
  const shown = mandoc(mdoc, '-T', 'utf8', '-O', 'width=200').stdout.replace(/.\u0008/g, '')
  expect(shown).toContain('hvsock://<path>:<port>   a port of the guest')
  expect(shown).toContain('0 ok   1 the guest refused')
  expect(shown).toContain('$ upcall vsock connect vsock://3:1024 < request > reply')
  expect(shown).toContain("printf 'READY=1\\n' | upcall vsock connect")
})

test('text that a macro would be made of', () => {
  expect(text('.Sh x')).toBe('\\&.Sh x')
  expect(text("'br")).toBe("\\&'br")
  expect(text('a\\nb - …')).toBe('a\\enb \\- \\[u2026]')
  expect(formatted('\nA.\nB.\n\n  $ x\n\n  $ y\n\nC.')).toEqual([
    ...['.Pp', 'A.', 'B.', '.Bd -literal -offset indent', '$ x', '', '$ y', '.Ed', '.Pp', 'C.'],
  ])
  expect(formatted('')).toEqual([])
  expect(headed('a\nOne:\n  b\nTwo words:\nc\n').sections.get('One')).toBe('  b\n')
})

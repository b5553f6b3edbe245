// The scripts in the shells themselves, each at a terminal of its own (script(1) of util-linux gives it one).
import { type ChildProcessWithoutNullStreams, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { type Shell, scripts } from './scripts.js'

const has = (program: string) => spawnSync(program, ['--version']).status === 0
const script = has('script')
const BASH_COMPLETION = '/usr/share/bash-completion/bash_completion'

let dir: string
const server = createServer()

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'upcall-tab-'))
  writeFileSync(join(dir, 'upcall'), `#!/bin/sh\nexec ${process.execPath} ${inject('program')} "$@"\n`)
  chmodSync(join(dir, 'upcall'), 0o755)
  for (const shell of Object.keys(scripts) as Shell[]) writeFileSync(join(dir, `script.${shell}`), scripts[shell])
  writeFileSync(join(dir, 'a file.bin'), '')
  await once(server.listen(join(dir, 'vm.sock')), 'listening')
})
afterAll(() => {
  server.close()
  rmSync(dir, { recursive: true })
})

const environment = () => ({ PATH: `${dir}:${process.env.PATH}`, HOME: dir, TERM: 'dumb', LC_ALL: 'C.UTF-8' })

/** What is on the line after each Tab. Ctrl-G shows the line. */
const starts: Record<'bash' | 'zsh', { argv: string; setUp: () => string[] }> = {
  bash: {
    argv: 'bash --norc --noprofile -i',
    setUp: () => [
      'PS1=',
      'bind "set bell-style none"; bind "set page-completions off"',
      'show() { printf "\\n<%s>\\n" "$READLINE_LINE"; }; bind -x \'"\\C-g": show\'',
      `source ${dir}/script.bash`,
    ],
  },
  zsh: {
    argv: 'zsh -f -i',
    setUp: () => [
      'PS1= RPS1=; unsetopt zle_bracketed_paste beep; autoload -Uz compinit; compinit -u -D',
      'show() { print -r -- $\'\\n\'"<$BUFFER>" }; zle -N show; bindkey "^G" show',
      // Tab is expand-or-complete otherwise, and zsh itself runs $(…) to expand it.
      'bindkey "^I" complete-word',
      `source ${dir}/script.zsh`,
    ],
  },
}

async function linesAfterTab(shell: 'bash' | 'zsh', typed: readonly string[], setUp: readonly string[] = []): Promise<string[]> {
  const { argv, setUp: own } = starts[shell]
  const child = spawn('script', ['-qec', argv, '/dev/null'], { cwd: dir, env: environment() })
  try {
    const said = reader(child)
    child.stdin.write(`${[...setUp, ...own()].join('\n')}\nprintf '%s-%s\\n' set up\n`)
    await said(/^set-up\r?$/m)
    const lines: string[] = []
    for (const text of typed) {
      child.stdin.write(`${text}\t\u0007`)
      lines.push((await said(/^<(.*)>\r?$/m))[1] ?? '')
      // Ctrl-U: an empty line again.
      child.stdin.write('\u0015')
    }
    child.stdin.write('exit\n')
    await once(child, 'exit')
    return lines
  } finally {
    child.kill('SIGKILL')
  }
}

/** Waits for a text that matches, after the match before. */
function reader({ stdout }: ChildProcessWithoutNullStreams) {
  let text = ''
  let wake = () => {}
  let over = false
  stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
    wake()
  })
  stdout.on('end', () => {
    over = true
    wake()
  })
  return async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const found = pattern.exec(text)
      if (found) {
        text = text.slice(found.index + found[0].length)
        return found
      }
      if (over) throw new Error(`the shell ended: ${text}`)
      await new Promise<void>((resolve) => (wake = resolve))
    }
  }
}

const typed = () => [
  'upcall stat',
  'upcall cpu re',
  'upcall status --arch x',
  'upcall status --arch=x',
  'upcall -t hvs',
  `upcall -t hvsock://${dir}/v`,
  `upcall vsock connect unix:${dir}/vm`,
  'upcall decode a\\ f',
  'upcall status $(touch evil)--js',
]

const completed = () => [
  'upcall status ',
  'upcall cpu remove ',
  'upcall status --arch x86_64 ',
  'upcall status --arch=x86_64 ',
  'upcall -t hvsock://',
  `upcall -t hvsock://${dir}/vm.sock:219 `,
  `upcall vsock connect unix:${dir}/vm.sock `,
  'upcall decode a\\ file.bin ',
  'upcall status $(touch evil)--js',
]

const reason = (shell: string) => `${shell} or script(1) is not installed: apt-get install ${shell} bsdutils`

test('bash, without bash-completion', async (context) => {
  if (!script || !has('bash')) context.skip(reason('bash'))
  expect(await linesAfterTab('bash', typed())).toEqual(completed())
  expect(existsSync(join(dir, 'evil'))).toBe(false)
})

test('bash, with bash-completion', async (context) => {
  if (!script || !existsSync(BASH_COMPLETION)) context.skip(reason('bash-completion'))
  expect(await linesAfterTab('bash', typed(), [`source ${BASH_COMPLETION}`])).toEqual(completed())
})

test('bash, where a colon does not break words', async (context) => {
  if (!script || !has('bash')) context.skip(reason('bash'))
  const own = "COMP_WORDBREAKS=$' \\t\\n='"
  expect(await linesAfterTab('bash', typed(), [own])).toEqual(completed())
})

test('zsh', async (context) => {
  if (!script || !has('zsh')) context.skip(reason('zsh'))
  expect(await linesAfterTab('zsh', typed())).toEqual(completed())
  expect(existsSync(join(dir, 'evil'))).toBe(false)
})

test('fish', (context) => {
  if (!has('fish')) context.skip(reason('fish'))
  const values = (line: string) =>
    execFileSync('fish', ['-N', '-c', `source ${dir}/script.fish; complete -C ${JSON.stringify(line)}`], {
      cwd: dir,
      env: environment(),
      encoding: 'utf8',
    })
      .split('\n')
      .slice(0, -1)
      .map((each) => each.split('\t')[0])
  expect(values('upcall stat')).toEqual(['status'])
  expect(values('upcall cpu re')).toEqual(['remove'])
  expect(values('upcall status --arch x')).toEqual(['x86_64'])
  expect(values('upcall status --arch=x')).toEqual(['--arch=x86_64'])
  expect(values(`upcall -t hvsock://${dir}/v`)).toEqual([`hvsock://${dir}/vm.sock:219`])
  expect(values(`upcall vsock connect unix:${dir}/vm`)).toEqual([`unix:${dir}/vm.sock`])
  expect(values('upcall decode a')).toContain('a file.bin')
})

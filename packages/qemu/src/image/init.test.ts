import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { INIT, START, type Start, startFiles } from './init.js'

const start: Start = {
  ...{ modules: ['a', 'b'], command: ['true'], cwd: '/', env: {}, token: 't', ports: ['p', 'q'], payload: true },
  early: 'echo early',
}
const sh = (...args: string[]) => execFileSync('sh', args, { encoding: 'utf8' })

describe('startFiles', () => {
  it('lists modules one a line, and the settings for the shell', () => {
    const { modules, config } = startFiles(start)
    expect(modules).toBe('a\nb\n')
    expect(sh('-c', `${config}echo "$token,$payload,$ports"`)).toBe('t,yes,p q\n')
    expect(sh('-c', startFiles(start).early!)).toBe('early\n')
  })

  it('hands every argument and variable to the command as it is', () => {
    const odd = ['a b', "it's", '$HOME `id` "x" \\', '', '*', 'two\nlines']
    const { command } = startFiles({ ...start, command: ['printf', '<%s>', ...odd], env: { ODD: odd.join() } })
    expect(sh('-c', command!)).toBe(odd.map((text) => `<${text}>`).join(''))
    const { command: print } = startFiles({
      ...start,
      command: ['sh', '-c', 'printf %s "$ODD"; pwd'],
      env: { ODD: odd.join() },
      cwd: '/tmp',
    })
    expect(sh('-c', print!)).toBe(`${odd.join()}/tmp\n`)
  })
})

describe('the scripts', () => {
  it.each([
    ['INIT', INIT],
    ['START', START],
  ])('%s is a shell script without syntax errors', (_, script) => {
    expect(sh('-n', '-c', script)).toBe('')
  })
})

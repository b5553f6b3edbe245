import { describe, expect, it } from 'vitest'
import { connectCommand, okReply, PASS_COMMAND, parseCommand, parsePassMessage, parseReply, passMessage } from './handshake.js'

const bytes = (text: string) => Buffer.from(text, 'latin1')

describe('parseReply', () => {
  it('is incomplete for every true prefix, and ends right after the newline', () => {
    const reply = okReply(1073741824)
    for (let n = 0; n < reply.length; n++) expect(parseReply(bytes(reply.slice(0, n)))).toEqual({ kind: 'incomplete' })
    expect(parseReply(bytes(reply))).toEqual({ kind: 'accepted', end: 14, hostPort: 1073741824 })
    expect(parseReply(bytes(`${reply}OK 2\nhello`))).toEqual({ kind: 'accepted', end: 14, hostPort: 1073741824 })
  })

  it.each([
    'X',
    'o',
    'OKAY',
    'OK-',
    'OK 1 ',
    'OK 1\r',
    'OK \n',
    'OK\n',
    '\n',
    'OK 1\r\n',
    ' OK 1\n',
    'OK 1x\n',
    'ok 1\n',
    'OK +1\n',
    'OK -1\n',
  ])('finds %j malformed as soon as it is', (text) => expect(parseReply(bytes(text)).kind).toBe('malformed'))

  it('takes 32 bytes with the newline and no more', () => {
    const longest = `OK ${'1'.repeat(28)}`
    expect(parseReply(bytes(`${longest}\n`))).toEqual({ kind: 'accepted', end: 32, hostPort: Number('1'.repeat(28)) })
    expect(parseReply(bytes(longest))).toEqual({ kind: 'incomplete' })
    expect(parseReply(bytes(`${longest}1`)).kind).toBe('malformed')
    expect(parseReply(bytes(`${longest}1\n`)).kind).toBe('malformed')
  })
})

describe('parseCommand', () => {
  it('reads back what the dialer writes', () => {
    for (const port of [0, 52, 4294967295]) {
      const command = connectCommand(port)
      expect(parseCommand(bytes(command))).toEqual({ kind: 'connect', port, end: command.length })
      for (let n = 0; n < command.length; n++) expect(parseCommand(bytes(command.slice(0, n))).kind).toBe('incomplete')
    }
  })

  it.each(['CONNECT 52\n', 'connect 52\n', 'CoNnEcT 52\n', 'CONNECT  52 \r\n', 'CONNECT 0052\n'])('takes %j', (text) => {
    expect(parseCommand(bytes(`${text}after`))).toEqual({ kind: 'connect', port: 52, end: text.length })
  })

  it.each(['CONNECT\n', 'CONNECT x\n', 'CONNECT -1\n', 'CONNECT 4294967296\n', 'CONNECT52\n', 'GET / HTTP/1.1\r\n', '\n'])(
    'refuses %j',
    (text) => expect(parseCommand(bytes(text)).kind).toBe('invalid'),
  )

  it('takes 32 bytes with the newline and no more', () => {
    const longest = `CONNECT ${'0'.repeat(21)}52`
    expect(parseCommand(bytes(`${longest}\n`))).toEqual({ kind: 'connect', port: 52, end: 32 })
    expect(parseCommand(bytes(`CONNECT ${'0'.repeat(22)}52\n`)).kind).toBe('invalid')
    expect(parseCommand(bytes(`${longest}0`)).kind).toBe('invalid')
  })
})

describe('passfd', () => {
  it.each([PASS_COMMAND, 'PassFD\n', ' passfd \r\n', 'passfd and more\n'])('is read from %j', (text) => {
    expect(parseCommand(bytes(text))).toEqual({ kind: 'passfd' })
    for (let n = 0; n < text.length; n++) expect(parseCommand(bytes(text.slice(0, n))).kind).toBe('incomplete')
  })

  it.each([
    [0, false],
    [1027, true],
    [4294967295, true],
  ])('reads back what the dialer sends beside the descriptor: port %d, keep %s', (port, keep) => {
    expect(parsePassMessage(bytes(passMessage(port, keep)))).toEqual({ port, keep })
    expect(parsePassMessage(bytes(`${passMessage(port, keep)}\n`))).toEqual({ port, keep })
  })

  it.each(['', 'keep', '1027 kept', '1027 keep keep', '-1', '4294967296', '1027,keep', `1027${' '.repeat(29)}`])(
    'takes nothing else beside the descriptor: %j',
    (text) => expect(parsePassMessage(bytes(text))).toBeUndefined(),
  )
})

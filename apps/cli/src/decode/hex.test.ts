import { expect, test } from 'vitest'
import { BOUNDARY, HexReader, looksLikeHex } from './hex.js'

/** The bytes in hexadecimal, `|` where a message begins. */
function read(text: string): string {
  const reader = new HexReader()
  return text
    .split('\n')
    .flatMap((line, i) => reader.read(line, i + 1))
    .map((piece) => (piece === BOUNDARY ? '|' : Buffer.from(piece).toString('hex')))
    .join('')
}

test('plain digits, with what people write between them', () => {
  expect(read('0a0B\n0c 0d')).toBe('0a0b0c0d')
  expect(read('0x0a, 0x0b\n0a:0b:0c # a comment\n# only a comment')).toBe('0a0b0a0b0c')
})

test('a blank line, or the magic at the beginning of one, begins a message', () => {
  expect(read('00014d4402\n00014D44\n\n6400014d44\nff00014d44')).toBe('|00014d4402|00014d44||6400014d44ff00014d44')
})

test('what xxd prints', () => {
  expect(
    read(
      '00000000: 6400 014d 4402 0000 0007 0000 0000 0000  d..MD...........\n00000010: 0028 23                                   .(#',
    ),
  ).toBe('|6400014d4402000000070000000000000028' + '23')
})

test('what hexdump -C prints, lines left out included', () => {
  const dump = [
    '00000000  00 01 4d 44 02 00 00 00  07 00 00 00 00 00 00 00  |..MD............|',
    '00000010  00 28 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |.(..............|',
    '00000020  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|',
    '*',
    '00000044',
  ].join('\n')
  expect(read(dump)).toBe(`|00014d4402000000070000000000000000${'28'}${'00'.repeat(0x44 - 0x12)}`)
})

test('text that is not hexadecimal is refused by line and character', () => {
  expect(() => read('00\n0g')).toThrow('line 2: "g" is not a hexadecimal digit')
  expect(() => read('000')).toThrow('line 1: 3 hexadecimal digits are not whole bytes')
})

test('hex text and raw streams are told apart', () => {
  for (const text of ['00014d44', '64 00', '# comment', '00000000: 6400', '']) expect(looksLikeHex(Buffer.from(text))).toBe(true)
  for (const raw of ['\0\u0001MD', 'd\0\u0001MD', 'CONNECT 219\nd', 'OK 1073741824\n'])
    expect(looksLikeHex(Buffer.from(raw))).toBe(false)
})

test('a long line that is not a dump is refused at once', () => {
  const digits = 'a'.repeat(60_000)
  expect(() => read(`00000000: ${digits}!`)).toThrow('line 1: "!" is not a hexadecimal digit')
  expect(() => read(`00000000  ${'aa '.repeat(20_000)}!`)).toThrow('line 1: "!" is not a hexadecimal digit')
})

test('the text column of a dump of xxd is left out, however the digits are grouped', () => {
  for (const digits of ['0a0b0c', '0a0b 0c', '0a 0b 0c', '0a 0b 0c ', '0a0b0c0d0a0b0c0d0a0b'])
    expect(read(`00000000: ${digits}  0d 0e`)).toBe(`|${digits.replaceAll(' ', '')}`)
  expect(read('00000000: 0a')).toBe('|0a')
})

test('a comment may have any character', () => {
  expect(read('0a # one # two\u2028three')).toBe('0a')
})

test('a star stands for so many bytes and no more', () => {
  const line = (offset: string) => `${offset}  ${'00 '.repeat(16)}`
  expect(() => read([line('00000000'), '*', line('ffffffffffff')].join('\n'))).toThrow(
    'line 3: the "*" before it stands for 281474976710639 bytes; at most 16777216 are filled in',
  )
})

import { encodeConnect, encodeRequest } from '@upcall/wire'
import { expect, test } from 'vitest'
import { type Piece, StreamCutter } from './stream.js'

const request = Buffer.from(encodeRequest({ type: 'ADD_PCI', bus: 0, devfn: 0x28 }, 'x86_64'))

function cut(bytes: Buffer, size: number, padded = false): Piece[] {
  const cutter = new StreamCutter()
  const pieces: Piece[] = []
  for (let at = 0; at < bytes.length; at += size) pieces.push(...cutter.push(bytes.subarray(at, at + size)))
  return [...pieces, ...cutter.end(padded)]
}

function shapes(pieces: Piece[]): unknown[] {
  return pieces.map((piece) => {
    if (piece.kind === 'message') return [piece.offset, 'message', piece.given]
    if (piece.kind === 'handshake') return [piece.offset, piece.text]
    return [piece.offset, piece.kind, piece.kind === 'service' ? piece.byte : piece.length]
  })
}

test('a connection is cut the same however it arrives', () => {
  const bytes = Buffer.concat([Buffer.from('CONNECT 219\nd'), request, request])
  for (const size of [1, 2, 3, 7, 13, 512, 1023, 1024, 1025, 4096]) {
    const pieces = cut(bytes, size)
    expect(shapes(pieces)).toEqual([
      [0, 'CONNECT 219'],
      [12, 'service', 0x64],
      [13, 'message', 1024],
      [1037, 'message', 1024],
    ])
    for (const piece of pieces) if (piece.kind === 'message') expect(Buffer.from(piece.bytes).equals(request)).toBe(true)
  }
})

test('connections may follow one another, with either service', () => {
  const bytes = Buffer.concat([
    Buffer.from('d'),
    request,
    Buffer.from('OK 1073741824\n'),
    encodeConnect(),
    Buffer.from('e'),
    request,
  ])
  for (const size of [1, 100, 9999]) {
    expect(shapes(cut(bytes, size))).toEqual([
      [0, 'service', 0x64],
      [1, 'message', 1024],
      [1025, 'OK 1073741824'],
      [1039, 'message', 1024],
      [2063, 'service', 0x65],
      [2064, 'message', 1024],
    ])
  }
})

test('bytes that make no sense are one piece, up to the next beginning', () => {
  const bytes = Buffer.concat([Buffer.alloc(300, 0xee), Buffer.from('d'), request, Buffer.from('rest')])
  for (const size of [1, 64, 9999]) {
    expect(shapes(cut(bytes, size))).toEqual([
      [0, 'garbage', 300],
      [300, 'service', 0x64],
      [301, 'message', 1024],
      [1325, 'garbage', 4],
    ])
  }
})

test('an unfinished message is cut off, or as long as it was written', () => {
  expect(shapes(cut(request.subarray(0, 100), 7))).toEqual([[0, 'cut', 100]])
  expect(shapes(cut(request.subarray(0, 100), 7, true))).toEqual([[0, 'message', 100]])
  expect(shapes(cut(request.subarray(0, 15), 7, true))).toEqual([[0, 'cut', 15]])
  expect(shapes(cut(Buffer.from('d'), 1))).toEqual([[0, 'service', 0x64]])
})

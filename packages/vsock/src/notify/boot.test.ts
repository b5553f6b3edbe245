import { describe, expect, it } from 'vitest'
import { type GuestBoot, newBoot, toldBoot, verdictOf } from './boot.js'
import { parseNotify } from './message.js'

const told = (...messages: string[]): GuestBoot =>
  messages.reduce((boot, text) => toldBoot(boot, parseNotify(Buffer.from(text))!), newBoot(42))

describe('a message', () => {
  it.each([
    ['READY=1', { READY: '1' }],
    ['READY=1\nSTATUS=Ready.\n', { READY: '1', STATUS: 'Ready.' }],
    ['A=1\r\nB=x=y\n\nno assignment\n=nameless\nA=2', { A: '2', B: 'x=y' }],
    ['READY=1\0', { READY: '1' }],
    ['__proto__=1', { ['__proto__']: '1' }],
  ])('%j is assignments', (text, fields) => {
    const message = parseNotify(Buffer.from(text), { cid: 3, port: 700 })
    expect(Object.entries(message!.fields).sort()).toEqual(Object.entries(fields).sort())
    expect(message!.from).toEqual({ cid: 3, port: 700 })
    expect(({} as Record<string, unknown>).READY).toBeUndefined()
  })

  it.each(['', '\n\n', 'READY', '=1', 'READY=1\0STATUS=x'])('%j holds no assignment', (text) => {
    expect(parseNotify(Buffer.from(text))).toBeUndefined()
  })

  it('need not be UTF-8', () => {
    expect(parseNotify(Uint8Array.of(0x41, 0x3d, 0xff))!.fields.A).toBe('\ufffd')
  })
})

describe('a boot', () => {
  it('is ready with READY=1', () => {
    const boot = told('X_SYSTEMD_HOSTNAME=guest', 'X_SYSTEMD_UNIT_ACTIVE=basic.target', 'READY=1\nSTATUS=Ready.')
    expect(verdictOf(boot)).toEqual({ kind: 'ready', doubtful: false })
    expect(boot).toMatchObject({ cid: 42, messages: 3, units: ['basic.target'] })
    expect({ ...boot.fields }).toEqual({ X_SYSTEMD_HOSTNAME: 'guest', READY: '1', STATUS: 'Ready.' })
  })

  it.each([['STATUS=Starting'], ['READY=0'], ['X_SYSTEMD_UNIT_ACTIVE=multi-user.target']])('is not with %s', (text) => {
    expect(verdictOf(told(text))).toEqual({ kind: 'waiting' })
  })

  it('waits for a unit, which may become inactive again', () => {
    const before = told('READY=1', 'X_SYSTEMD_UNIT_ACTIVE=basic.target')
    expect(verdictOf(before, 'multi-user.target')).toEqual({ kind: 'waiting' })
    const after = told('READY=1', 'X_SYSTEMD_UNIT_ACTIVE=multi-user.target', 'X_SYSTEMD_UNIT_ACTIVE=multi-user.target')
    expect(after.units).toEqual(['multi-user.target'])
    expect(verdictOf(after, 'multi-user.target')).toEqual({ kind: 'ready', doubtful: false })
    const gone = toldBoot(after, parseNotify(Buffer.from('X_SYSTEMD_UNIT_INACTIVE=multi-user.target'))!)
    expect(verdictOf(gone, 'multi-user.target')).toEqual({ kind: 'waiting' })
  })

  it.each([
    ['EXIT_STATUS=1\nX_SYSTEMD_SHUTDOWN=exit', 'stopped', 'it has gone down (EXIT_STATUS=1)'],
    ['X_SYSTEMD_SHUTDOWN=reboot', 'stopped', 'it goes down (X_SYSTEMD_SHUTDOWN=reboot)'],
    ['STOPPING=1', 'stopped', 'it goes down (STOPPING=1)'],
    ['ERRNO=2', 'failed', 'it reports a failure (ERRNO=2)'],
    ['X_SYSTEMD_UNIT_ACTIVE=emergency.target', 'failed', 'its boot ended in emergency.target'],
    [`EXIT_STATUS=\x1b[31m${'x'.repeat(50)}`, 'stopped', `it has gone down (EXIT_STATUS=?[31m${'x'.repeat(35)}…)`],
  ])('is over with %j, READY=1 or not', (text, kind, what) => {
    expect(verdictOf(told(text))).toEqual({ kind, what })
    expect(verdictOf(told(text, 'READY=1')).kind).toBe(text.startsWith('EXIT_STATUS') ? 'ready' : kind)
    expect(verdictOf(told('READY=1', text))).toEqual({ kind, what })
  })

  it('may be wanted in emergency mode', () => {
    const boot = told('X_SYSTEMD_UNIT_ACTIVE=emergency.target', 'READY=1')
    expect(verdictOf(boot, 'emergency.target')).toEqual({ kind: 'ready', doubtful: false })
  })

  it('is in doubt without basic.target, where systemd tells of targets', () => {
    const doubtful = (...messages: string[]) => verdictOf(told(...messages, 'READY=1'))
    expect(doubtful()).toEqual({ kind: 'ready', doubtful: false })
    expect(doubtful('X_SYSTEMD_SIGNALS_LEVEL=2')).toEqual({ kind: 'ready', doubtful: true })
    expect(doubtful('X_SYSTEMD_SIGNALS_LEVEL=2', 'X_SYSTEMD_UNIT_ACTIVE=basic.target')).toMatchObject({ doubtful: false })
  })

  it('after EXIT_STATUS= is the next one', () => {
    const boot = told('READY=1', 'EXIT_STATUS=0', 'X_SYSTEMD_HOSTNAME=guest')
    expect(verdictOf(boot)).toEqual({ kind: 'waiting' })
    expect(boot.messages).toBe(1)
  })

  it('keeps no more than 16 KiB of a guest, 64 names and 256 units, whatever it says', () => {
    const kept = ({ fields, units }: GuestBoot) => Object.entries(fields).flat().join('').length + units.join('').length
    let boot = newBoot(42)
    for (let i = 0; i < 300; i++) {
      boot = toldBoot(boot, parseNotify(Buffer.from(`NAME${i}=${'x'.repeat(20)}`))!)
      boot = toldBoot(boot, parseNotify(Buffer.from(`X_SYSTEMD_UNIT_ACTIVE=unit${i}.target`))!)
    }
    expect([Object.keys(boot.fields).length, boot.units.length, boot.messages]).toEqual([64, 256, 600])
    for (let i = 0; i < 64; i++) boot = toldBoot(boot, parseNotify(Buffer.from(`NAME${i}=${'y'.repeat(4000)}`))!)
    expect(kept(boot)).toBeLessThanOrEqual(16_384)
    boot = toldBoot(newBoot(42), parseNotify(Buffer.from(`X_SYSTEMD_UNIT_ACTIVE=${'x'.repeat(16_384)}`))!)
    boot = toldBoot(boot, parseNotify(Buffer.from('X_SYSTEMD_UNIT_ACTIVE=a\nREADY=1'))!)
    expect([kept(boot), verdictOf(boot).kind]).toEqual([16_384, 'waiting'])
  })
})

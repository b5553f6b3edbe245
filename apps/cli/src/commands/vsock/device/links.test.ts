import { once } from 'node:events'
import { existsSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { VsockNetwork } from '@upcall/vhost-user'
import { connect } from '@upcall/vsock'
import { test as base, expect } from 'vitest'
import * as yaml from 'yaml'
import { binding } from '../../../../../../packages/vhost-user/testing/scene.js'
import { Sink } from '../../../../testing/harness.js'
import { closers, dir } from '../../../../testing/peers.js'
import { Context } from '../../../context.js'
import { Interrupted } from '../../../errors.js'
import { ExitStatus } from '../../../exit.js'
import { parseConfig } from './config-file.js'
import { type DeviceOptions, wantedBy, wantedIn, wantedOf } from './options.js'
import { serveDevices } from './service.js'
import { thisMachine } from './surroundings.js'

// Each has a device.
const test = base.runIf(binding !== undefined)

const WAIT = { timeout: 10_000, interval: 10 }

type Options = DeviceOptions & { link?: string; linkListen?: string; mode?: string }

/** The command with a device that waits for QEMU, in a process of its own as far as the links can tell. */
async function serving(options: Options) {
  const network = new VsockNetwork()
  const stdout = new Sink()
  const controller = new AbortController()
  let hangUp: (() => void) | undefined
  const io = {
    ...{ stdin: Readable.from([]), stdout, stderr: new Sink(), env: {}, signal: controller.signal },
    onHangUp(fn: () => void) {
      hangUp = fn
      return () => (hangUp = undefined)
    },
  }
  const { config } = options
  const context = new Context(io, new ExitStatus(), { json: true })
  const reread = config === undefined ? undefined : () => wantedIn(config)
  const done = serveDevices(context, await wantedBy(options), reread, { ...thisMachine, network: async () => network })
  const stop = () => {
    controller.abort(new Interrupted('SIGTERM'))
    return done.catch(() => {})
  }
  closers.push(stop)
  const events = (event: string) => stdout.json.filter((line) => line.event === event)
  return {
    ...{ network, stdout, done, stop, events },
    told: (event: string, count = 1) => expect.poll(() => events(event).length, WAIT).toBe(count),
    async change(text: string) {
      const count = events('reloaded').length
      writeFileSync(config!, text)
      hangUp!()
      await expect.poll(() => events('reloaded').length, WAIT).toBe(count + 1)
      return events('reloaded').at(-1)
    },
  }
}

const at = (name: string) => join(dir, name)
const vm = (cid: number) => [`guest-cid=${cid},socket=${at(`${cid}.vhost`)},uds-path=${at(`${cid}.vsock`)}`]
const reaches = (network: VsockNetwork, cid: number, isReachable = true) =>
  expect.poll(() => network.reaches(cid), WAIT).toBe(isReachable)

test('any number of processes dial one: their guests reach each other, and the socket has its mode', async () => {
  const hub = await serving({ vm: vm(3), linkListen: at('hub'), mode: '600' })
  await hub.told('link-listening')
  expect(statSync(at('hub')).mode & 0o777).toBe(0o600)
  const four = await serving({ vm: vm(4), link: at('hub') })
  // Peers are numbered as they come.
  await hub.told('link-up')
  const five = await serving({ vm: vm(5), link: at('hub') })
  await Promise.all([reaches(hub.network, 4), reaches(hub.network, 5), reaches(four.network, 5), reaches(five.network, 3)])
  await hub.told('link-up', 2)
  expect(hub.events('link-up')).toEqual([
    expect.objectContaining({ path: at('hub'), peer: 1 }),
    expect.objectContaining({ path: at('hub'), peer: 2 }),
  ])
  expect(four.events('link-up')).toEqual([{ time: expect.any(String), event: 'link-up', path: at('hub') }])
  expect(four.events('reach')).toContainEqual(expect.objectContaining({ cid: 5, isReachable: true }))
  await four.stop()
  expect(four.events('link-over')).toEqual([expect.objectContaining({ reason: 'closed' })])
  await reaches(five.network, 4, false)
  expect(hub.events('link-over')).toEqual([expect.objectContaining({ peer: 1, reason: 'lost' })])
  await hub.stop()
  expect(existsSync(at('hub'))).toBe(false)
})

test('a process is dialled before it listens, and again after it was lost', async () => {
  const three = await serving({ vm: vm(3), link: at('hub') })
  await three.told('link-waiting')
  expect(three.events('link-waiting')[0]).toMatchObject({ path: at('hub'), error: { code: 'ECONNREFUSED' } })
  for (const count of [1, 2]) {
    const hub = await serving({ vm: vm(4), linkListen: at('hub') })
    await three.told('link-up', count)
    await reaches(three.network, 4)
    await hub.stop()
    await three.told('link-over', count)
    expect(three.events('link-over').at(-1)).toMatchObject({ path: at('hub'), reason: 'lost' })
    await reaches(three.network, 4, false)
  }
  // Waiting is told once, however often the dialling fails.
  expect(three.events('link-waiting')).toHaveLength(1)
})

test('a CID that two processes have is told, and a client that speaks something else is closed', async () => {
  const hub = await serving({ vm: vm(3), linkListen: at('hub') })
  await hub.told('link-listening')
  const twin = [`guest-cid=3,socket=${at('twin.vhost')},uds-path=${at('twin.vsock')}`]
  const other = await serving({ vm: twin, link: at('hub') })
  await hub.told('conflict')
  await other.told('conflict')
  expect(hub.events('conflict')).toEqual([expect.objectContaining({ cid: 3 })])
  const stranger = await connect(`unix:${at('hub')}`)
  stranger.resume().write(Buffer.alloc(64, 0x41))
  await once(stranger, 'close')
  await hub.told('link-over')
  expect(hub.events('link-over')).toEqual([expect.objectContaining({ peer: 2, reason: 'protocol' })])
  expect(hub.events('link-up')).toHaveLength(1)
})

test('SIGHUP: links come and go, and those that are as before are not touched', async () => {
  const file = (more: string) => `vms:\n  - { guest_cid: 4, socket: ${at('4.vhost')}, uds_path: ${at('4.vsock')} }\n${more}`
  const hub = await serving({ vm: vm(3), linkListen: at('hub') })
  await hub.told('link-listening')
  writeFileSync(at('vms.yaml'), file(''))
  const command = await serving({ config: at('vms.yaml') })
  await command.told('listening')
  const both = `link: ${at('hub')}\nlink_listen: ${at('sub')}\nmode: 600\n`
  expect(await command.change(file(both))).toMatchObject({ links: ['link-listen', 'link'], failed: [] })
  const leaf = await serving({ vm: vm(5), link: at('sub') })
  await Promise.all([reaches(leaf.network, 3), reaches(hub.network, 5)])
  expect(await command.change(file(`# as before\n${both}`))).toMatchObject({ links: [] })
  expect([command.events('link-over'), command.network.reaches(3)]).toEqual([[], true])
  expect(await command.change(file(`link: ${at('hub')}\n`))).toMatchObject({ links: ['link-listen'] })
  expect(existsSync(at('sub'))).toBe(false)
  await reaches(hub.network, 5, false)
  expect(hub.events('link-over')).toEqual([])
  expect(await command.change(file(''))).toMatchObject({ links: ['link'] })
  await hub.told('link-over')
})

test('a socket that does not open: at first the command ends, later it is told and tried again', async () => {
  const server = createServer().listen(at('hub'))
  await once(server, 'listening')
  const first = await serving({ vm: vm(3), linkListen: at('hub') })
  await expect(first.done).rejects.toThrow(/--link-listen: cannot be used: .*another server listens there/)
  expect(existsSync(at('3.vhost'))).toBe(false)
  const text = `vms: [{ socket: ${at('3.vhost')}, uds_path: ${at('3.vsock')} }]\n`
  writeFileSync(at('vms.yaml'), text)
  const command = await serving({ config: at('vms.yaml') })
  await command.told('listening')
  const linked = `${text}link-listen: ${at('hub')}\n`
  expect(await command.change(linked)).toMatchObject({ links: [] })
  expect(command.events('failed')).toEqual([
    expect.objectContaining({ error: expect.objectContaining({ subject: `${at('vms.yaml')}:2:14` }) }),
  ])
  server.close()
  await once(server, 'close')
  expect(await command.change(linked)).toMatchObject({ links: ['link-listen'] })
})

test.each([
  ['links: /x', /^f:2:1: links is not a key of the file\. Did you mean "link"\? The keys are vms, link, link_listen and mode/],
  ['link: ""', /^f:2:7: link must be a path/],
  ['link: /x\nlink-listen: /x', /^f:2:7: link has the path of link_listen/],
  ['mode: 600', /^f:2:7: mode needs link_listen/],
  ['link_listen: /x\nmode: 999', /^f:3:7: mode must be three octal digits, as in 660, got "999"/],
  ['link: /x\nlink: /y', /^f:3:1: /],
])('a file with %j is wrong', (more, message) => {
  const text = `vms: [{ socket: /s, uds_path: /u }]\n${more}\n`
  expect(() => wantedOf(parseConfig(text, 'f', yaml))).toThrow(message)
})

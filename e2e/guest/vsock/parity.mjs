// The scenes of tests/parity over AF_VSOCK as the kernel has it, compared with `net` over a Unix socket. `counting` is left out: a
// listener of ours keeps a spare descriptor there, its thousands of connections take a minute, and load.mjs counts descriptors.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { bindServer, createSocket, VsockAgent } from '@upcall/vsock'
import { expected } from './differences.mjs'
import { sockets } from './observed.mjs'
import { scenes } from './scenes/index.mjs'
import { play } from './stage.mjs'
import { TIMEOUT } from './support.mjs'

const { counting: _, ...groups } = scenes

const control = {
  name: 'net over a Unix socket',
  traits: ['server'],
  async open() {
    const folder = mkdtempSync(join(tmpdir(), 'parity-'))
    const path = join(folder, 'socket')
    return {
      connect: (options) => connect({ ...options, path }),
      listen: (server) => new Promise((resolve) => server.listen(path, resolve)),
      close: async () => rmSync(folder, { recursive: true }),
    }
  },
}

let nextPort = 20_000

const kernel = {
  name: 'vsock://local',
  traits: ['vsock', 'bindServer', 'server'],
  async open(lingerMs) {
    const address = `vsock://local:${nextPort++}`
    return {
      connect: (options) => createSocket(address, { lingerMs, ...options }),
      listen: (server) => bindServer(server, address, { lingerMs }),
      agent: (options) => new VsockAgent(address, { ...options, connect: { lingerMs } }),
      close: async () => {},
    }
  },
}

for (const [group, scenes] of Object.entries(groups))
  for (const scene of scenes) {
    const name = `${group}: ${scene.name}`
    test(`as net does it, ${name}`, TIMEOUT, async () => {
      const theirs = await play(scene, control)
      sockets.length = 0
      assert.deepEqual(await play(scene, kernel), expected(name, kernel.traits, theirs))
      assert.ok(sockets.length > 0, 'the kernel was asked for AF_VSOCK')
    })
  }

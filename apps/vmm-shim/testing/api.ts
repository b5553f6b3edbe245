import { connect as netConnect } from 'node:net'
import { join } from 'node:path'
import { expect } from 'vitest'
import { makeRig, type Rig, type RigOptions } from '../../../packages/vmm/testing/rig.js'
import { openApi } from '../src/api/app.js'
import { callApi } from '../src/demo/api-client.js'
import { type Log, silentLog } from '../src/log.js'

type ApiRigOptions = RigOptions & { requestTimeoutMs?: number; log?: Log }

/** A VM with the control API in front of it. */
export async function makeApi({ requestTimeoutMs, log = silentLog, ...options }: ApiRigOptions = {}) {
  const rig = await makeRig(options)
  const path = join(rig.directory, 'api.sock')
  const api = await openApi({ transport: 'unix', path }, { log, requestTimeoutMs })
  api.serve(rig.vm)
  return {
    ...rig,
    path,
    call: (method: string, resource: string, body?: unknown) => callApi(path, method, resource, body, 10_000),
    async [Symbol.asyncDispose]() {
      await api.close()
      await (rig as Rig)[Symbol.asyncDispose]()
    },
  }
}

/** Sends bytes as they are, and resolves with all that comes back. */
export function raw(path: string, text: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = ''
    const socket = netConnect(path)
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      answer += chunk
    })
    socket.on('error', reject).on('close', () => resolve(answer))
    socket.write(text)
  })
}

/** A JSON body that says why a request failed. */
export const fault = (outcome: string, message: RegExp, errno: number | null = null) => ({
  fault_message: expect.stringMatching(message),
  code: expect.stringMatching(/^[A-Z_]+$/),
  outcome,
  errno,
})

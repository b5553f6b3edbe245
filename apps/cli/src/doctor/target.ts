import type { Address } from '@upcall/vsock'
import { formatAddress } from '@upcall/vsock'
import { octal } from './checks.js'
import { type Finding, failure, ok, warning } from './finding.js'
import type { System } from './system.js'

/** Looks at a guest's address, step by step, up to the first that fails. AF_VSOCK is never connected. */
export async function checkTarget(system: System, target: Address): Promise<Finding[]> {
  const address = formatAddress(target)
  if (target.transport === 'vsock')
    return [
      warning('target', `${address} is not tried: this command does not connect over AF_VSOCK`, '`upcall status` tries it.'),
    ]
  const file = await socketFile(system, target.path)
  if (file.verdict !== 'ok') return [file]
  if (target.transport === 'hvsock') {
    // Without CONNECT, a VMM gives no connection to the guest. unix: is the guest's own port, which is connected once.
    const failed = await system.connectUnix(target.path)
    if (failed) return [file, noListener(target.path, failed.code, failed.what)]
  }
  const { connected, error } = await system.greet(target)
  const listener = ok('listener', 'a process listens')
  if (!connected) {
    if (error?.code === 'ECONNREFUSED' && target.transport === 'unix')
      return [file, noListener(target.path, error.code, error.what)]
    const next = error?.next ?? 'Is the guest running, and does its kernel have upcall?'
    return [file, listener, failure('connection', `no connection to ${address}: ${error?.what ?? 'unknown'}`, next)]
  }
  const connection = ok('connection', target.transport === 'hvsock' ? `CONNECT ${target.port} was answered with OK` : 'is open')
  if (error) {
    const next = error.next ?? 'Is the guest still booting? `upcall wait` keeps trying.'
    return [file, listener, connection, failure('greeting', `the guest does not greet: ${error.what}`, next)]
  }
  return [file, listener, connection, ok('greeting', "the guest's device manager greets")]
}

async function socketFile(system: System, path: string): Promise<Finding> {
  const stat = await system.stat(path)
  if ('code' in stat) {
    if (stat.code === 'ENOENT') return failure('socket', `${path} does not exist`, 'Start the VMM, or correct the path.')
    return failure('socket', `${path}: ${stat.what}`, 'Check the permissions of the folders above it.')
  }
  if (stat.kind !== 'socket')
    return failure('socket', `${path} is a ${stat.kind}, not a socket`, "Write the path of the VMM's vsock socket.")
  const { uid, gid, mode } = stat
  const facts = `mode ${octal(mode)}, owner ${uid}, group ${gid}`
  if (await system.mayUse(path)) return ok('socket', `${path} (${facts})`)
  const { groups } = system.user
  const byGroup = (mode & 0o060) === 0o060 && !groups.includes(gid)
  const next = byGroup
    ? `Add this user to the group ${gid}, and log in again.`
    : `Run as user ${uid} or root, or give its group the permission: chmod 660 ${path}.`
  return failure('socket', `${path} may not be connected by user ${system.user.uid} (${facts})`, next)
}

function noListener(path: string, code: string, what: string): Finding {
  if (code === 'ECONNREFUSED')
    return failure('listener', `no process listens on ${path}`, 'The VMM that made this file is gone: start it again.')
  if (code === 'EAGAIN')
    return failure('listener', `the process at ${path} accepts no connections`, 'Is the VMM stuck, or paused?')
  return failure('listener', `${path}: ${what}`, 'Is the VMM running?')
}

// Runs in the guest. What it writes to stdout are JSON lines; it leaves with status 7 to show that a status comes through.
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'

const modules = readFileSync('/proc/modules', 'utf8')
tell({ version: process.version, release: release(), cpus: cpus().length, memory: totalmem() })
tell({
  device: existsSync('/dev/vsock'),
  loopback: /^vsock_loopback /m.test(modules),
  args: process.argv.slice(2),
  env: process.env.ODD,
})

// AF_VSOCK loopback, CID 1, between two socats.
const listener = spawn('socat', ['-d', '-d', 'VSOCK-LISTEN:5000', 'EXEC:cat'], { stdio: ['ignore', 'ignore', 'pipe'] })
await new Promise((resolve, reject) => {
  listener.stderr.on('data', (chunk) => {
    if (/listening on/.test(chunk)) resolve()
  })
  listener.once('exit', () => reject(new Error('socat ended')))
})
tell({ echo: String(execFileSync('socat', ['-t', '5', '-', 'VSOCK-CONNECT:1:5000'], { input: 'over vsock', timeout: 10_000 })) })

console.error('a word for the console')
// More than a virtio port takes in one write.
tell({ long: 'x'.repeat(200_000) })
process.exitCode = 7

function tell(value) {
  console.log(JSON.stringify(value))
}

import { spawnSync } from 'node:child_process'

/** Compiles a C program for this machine; statically, so that its C library need not be the guest's. */
export function compile(source, output) {
  const compiler = process.env.CC ?? 'cc'
  const flags = ['-std=gnu11', '-Wall', '-Wextra', '-Werror', '-O2', '-static']
  const { status, error, stderr } = spawnSync(compiler, [...flags, source, '-o', output], { encoding: 'utf8' })
  if (error) throw new Error(`${compiler}: ${error.message}; on Debian: apt-get install gcc libc6-dev`)
  if (status !== 0) throw new Error(stderr)
}

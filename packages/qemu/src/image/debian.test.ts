import { describe, expect, it } from 'vitest'
import { packageFiles, packageNames } from './debian.js'

describe('packageNames', () => {
  it('takes packages, and neither relations nor virtual packages', () => {
    const text = [
      'socat',
      '  Depends: libc6',
      ' |Depends: debconf',
      '  Depends: <debconf-2.0>',
      'libc6',
      '<debconf-2.0>',
      'libstdc++6',
      'libc6',
    ].join('\n')
    expect(packageNames(text)).toEqual(['libc6', 'libstdc++6', 'socat'])
  })
})

describe('packageFiles', () => {
  it('reads names, files and digests', () => {
    const digest = 'ba4f88f73dbc3ae9055f3c20f4523bfdbaf1ad13ff95e258924f77d20b4fbedf'
    const text = `'http://mirror.invalid/pool/l/libc6_2.36-9%2bdeb12u14_amd64.deb' libc6_2.36-9+deb12u14_amd64.deb 2759320 SHA256:${digest}
'http://mirror.invalid/pool/b/b.deb' busybox-static_1%3a1.35.0-4_amd64.deb 928188 SHA256:${digest}
'http://mirror.invalid/pool/o/old.deb' old_1_all.deb 1 MD5Sum:00
`
    expect(packageFiles(text)).toEqual([
      { name: 'libc6', file: 'libc6_2.36-9+deb12u14_amd64.deb', size: 2759320, sha256: digest },
      { name: 'busybox-static', file: 'busybox-static_1%3a1.35.0-4_amd64.deb', size: 928188, sha256: digest },
    ])
  })
})

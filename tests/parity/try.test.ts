import { it } from 'vitest'
import { writeFileSync } from 'node:fs'
import { play, type Scene } from './stage.mjs'
import { scenes } from './scenes/index.mjs'
import { control, tcp, transports } from './transports.js'
it('x', { timeout: 500_000 }, async () => {
  const pick = process.env.PICK ?? '', on = process.env.ON ?? ''
  const out: string[] = []
  for (const [group, list] of Object.entries(scenes)) for (const s of list as Scene[]) {
    if (!`${group}: ${s.name}`.includes(pick)) continue
    const run = (t: typeof tcp) => play(s, t, 9000).catch((e: Error) => ({ failed: [e.message] }) as Record<string,string[]>)
    const j = (x: unknown) => JSON.stringify(x, null, 1)
    const c = j(await run(control))
    out.push(`## ${group}: ${s.name} ${c.includes('"failed"') ? 'FAILED ' + c : process.env.V ? c : ''}`)
    for (const t of [control, ...(process.env.TCP ? [tcp] : []), ...transports]) {
      if (!t.name.includes(on) || s.needs.some(n => !t.traits.includes(n))) continue
      const o = await run(t); const oj = j(o)
      if (oj !== c) {
        out.push(`- ${t.name}`)
        if (process.env.V) for (const [n, l] of Object.entries(o)) if (j(l) !== j(JSON.parse(c)[n])) out.push(`${n}: ${j(l)}`)
      }
    }
    writeFileSync('/tmp/parity-try.txt', out.join('\n') + '\n')
  }
})

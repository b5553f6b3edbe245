import { describe, expect, it } from 'vitest'
import { cannotPlay, differencesOf, expected } from './differences.mjs'
import { play, type Scene, type Transport } from './stage.mjs'
import { control } from './transports.js'

export type Groups = Readonly<Record<string, readonly Scene[]>>

/** Each scene is played once over the control. */
const played = new Map<Scene, Promise<Record<string, string[]>>>()

function overControl(scene: Scene): Promise<Record<string, string[]>> {
  const known = played.get(scene) ?? play(scene, control)
  played.set(scene, known)
  return known
}

/** Tests that a transport does in each scene what the control does, but for the listed differences. */
export function compare(transport: Transport, groups: Groups): void {
  describe(transport.name, () => {
    for (const [group, scenes] of Object.entries(groups))
      for (const scene of scenes.filter(({ needs }) => needs.every((need) => transport.traits.includes(need)))) {
        const name = `${group}: ${scene.name}`
        const test = async () => {
          const theirs = await overControl(scene)
          if (cannotPlay(name, transport.traits)) {
            const seen = await play(scene, transport, { lingerMs: 100, deadlineMs: 2_000 }).catch(String)
            expect(seen).not.toEqual(theirs)
            return
          }
          const lingerMs = differencesOf(name, transport.traits).find((each) => each.lingerMs !== undefined)?.lingerMs
          const seen = await play(scene, transport, lingerMs === undefined ? {} : { lingerMs })
          expect(textOf(seen)).toBe(textOf(expected(name, transport.traits, theirs)))
        }
        if (scene.alone) it(name, test)
        else it.concurrent(name, test)
      }
  })
}

/** A line each, for a difference that a person can read. */
function textOf(logs: Record<string, string[]>): string {
  const ends = Object.keys(logs).sort()
  return ends.map((end) => [`${end}:`, ...(logs[end] ?? []).map((line) => `  ${line}`)].join('\n')).join('\n')
}

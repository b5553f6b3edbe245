import { seededRandom } from '@upcall/foundation/testing/seeded-random'
import { expect, test } from 'vitest'
import { Coverage, mutate, program } from '../../testing/guided.js'
import { trial } from '../../testing/trial.js'
import { Op } from './packet.js'

/** Where the search begins: a guest that answers a host's connection, a guest that begins its own, a broken guest. */
const SEEDS = [
  [0, 16, 6, 2, 1, Op.RESPONSE, 0, 2, 3, 7, 0, 2, 1, Op.RW, 0, 2, 3, 7, 0, 2, 7, 0, 5],
  [0, 16, 1, Op.REQUEST, 0, 1, 2, 8, 0, 0, 7, 0, 0, 7, 0, 1, 1, Op.SHUTDOWN, 3, 1, 2, 8, 0, 0, 8, 200],
  [0, 16, 1, Op.REQUEST, 0x80, 1, 2, 8, 0, 0, 7, 0, 0, 7, 0, 7, 1, Op.RW, 0x81, 1, 2, 8, 0, 2, 7, 0, 6, 8, 200],
  [5, 1, 3, 2, 1, 0, 3, 4, 2, 0, 1, 0, 3, 1, 0],
].map((bytes) => Uint8Array.from(bytes))

/** GUIDED_RUNS=200000 searches longer, GUIDED_SEED elsewhere; a failure names the program, in hex. */
const RUNS = Number(process.env.GUIDED_RUNS ?? 1_500)
const SEED = Number(process.env.GUIDED_SEED ?? 1)

test(
  'programs that reach new code are kept and varied; none does the device harm',
  async () => {
    const random = seededRandom(SEED)
    const coverage = await Coverage.start((url) => /\/src\/machine\/(?!.*\.test\.)[\w-]+\.ts/.test(url))
    const corpus: Uint8Array[] = []
    const pick = () => corpus[Math.floor(random() * corpus.length)]!
    try {
      for (let run = 0; run < SEEDS.length + RUNS; run++) {
        const bytes = SEEDS[run] ?? mutate(pick(), pick(), random)
        try {
          trial(program(bytes))
        } catch (error) {
          throw new Error(`the guest's program ${Buffer.from(bytes).toString('hex')}`, { cause: error })
        }
        if ((await coverage.news()) > 0 || run < SEEDS.length) corpus.push(bytes)
      }
    } finally {
      await coverage.stop()
    }
    // A search that is not guided by anything would keep nothing.
    expect(corpus.length).toBeGreaterThan(SEEDS.length + 10)
  },
  60_000 + RUNS * 20,
)

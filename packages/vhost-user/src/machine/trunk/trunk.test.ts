import { describe } from 'vitest'
import { FakeNetwork } from '../../../testing/fake-network.js'
import { FakeTrunks } from '../../../testing/fake-trunks.js'
import { hostileSuite } from '../../../testing/hostile-suite.js'
import { type MakeNetwork, networkSuite } from '../../../testing/network-suite.js'

/** Guests are put on one switch after the other. */
const spread =
  (switches: number, links: readonly (readonly [number, number])[]): MakeNetwork =>
  (random) => {
    const network = new FakeNetwork(random, switches)
    const trunks = new FakeTrunks(network, random)
    for (const [one, other] of links) trunks.link(one, other)
    return network
  }

describe('over a link of two networks', () => {
  networkSuite(spread(2, [[0, 1]]), 15)
  hostileSuite(spread(2, [[0, 1]]))
})

describe('over a hub that three networks are linked to', () => {
  const links = [
    [3, 0],
    [3, 1],
    [3, 2],
  ] as const
  networkSuite(spread(4, links), 15)
  hostileSuite(spread(4, links))
})

import { FakeNetwork } from '../../../testing/fake-network.js'
import { networkSuite } from '../../../testing/network-suite.js'

networkSuite((random) => new FakeNetwork(random))

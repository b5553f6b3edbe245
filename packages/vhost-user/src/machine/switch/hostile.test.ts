import { FakeNetwork } from '../../../testing/fake-network.js'
import { hostileSuite } from '../../../testing/hostile-suite.js'

hostileSuite((random) => new FakeNetwork(random))

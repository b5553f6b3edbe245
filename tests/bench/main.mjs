// Speed and memory, as ratios against a baseline measured in the same run; absolute figures of a shared machine mean little.
// `npm run bench`, or `npm run bench -- codec` for one of them. Runs what is published (dist/).
import { bench as adopted } from './adopted.mjs'
import { bench as codec } from './codec.mjs'
import { bench as devices } from './devices.mjs'
import { bench as forward } from './forward.mjs'
import { bench as peers } from './peers.mjs'
import { bench as session } from './session.mjs'
import { bench as transport } from './transport.mjs'
import { bench as vhostUser } from './vhost-user.mjs'

const all = { codec, transport, adopted, forward, session, peers, 'vhost-user': vhostUser, devices }
const wanted = process.argv.slice(2)
for (const name of wanted) {
  if (!Object.hasOwn(all, name)) {
    console.error(`bench: ${JSON.stringify(name)} is not one of ${Object.keys(all).join(', ')}`)
    process.exit(2)
  }
}

for (const [name, run] of Object.entries(all)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  console.log(`\n${name}`)
  console.table(await run())
}

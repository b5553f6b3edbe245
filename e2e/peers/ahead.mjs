// Builds what the suite `peers` needs, ahead of it: `node e2e/peers/ahead.mjs`. The suite finds it in the cache, or says why it cannot
// be built.
import { missingPeerTools } from './tools.mjs'

const parts = [await import('./rust.mjs'), await import('./go.mjs')]

for (const { tools, programs } of parts) {
  if (missingPeerTools(...tools)) continue
  for (const build of await programs()) await build().catch(() => {})
}

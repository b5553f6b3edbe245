import { defineConfig } from 'tsup'
import { library } from '../../tsup.base.js'

export default defineConfig(
  library({ index: 'src/index.ts', 'guest/index': 'src/guest/index.ts', simulated: 'src/guest/simulated/index.ts' }),
)

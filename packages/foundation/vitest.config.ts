import { mergeConfig } from 'vitest/config'
import base from '../../vitest.project.js'

export default mergeConfig(base, { test: { name: 'foundation', include: ['{src,testing}/**/*.test.ts'] } })

import { mergeConfig } from 'vitest/config'
import base from '../../vitest.project.js'

export default mergeConfig(base, { test: { name: 'trace' } })

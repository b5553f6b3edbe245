import { gzipSync } from 'node:zlib'
import { defineConfig, type Plugin } from 'vite'

/** Kilobytes of scripts and styles that a browser loads, compressed. */
const MOST_KB = 40

/** Says how big the page is. A page that has grown too big is not built. */
const size: Plugin = {
  name: 'size',
  generateBundle(_options, bundle) {
    const sizes = Object.values(bundle).map((file) => gzipSync(file.type === 'chunk' ? file.code : file.source).length)
    const kb = sizes.reduce((sum, each) => sum + each, 0) / 1000
    if (kb > MOST_KB) this.error(`the page has ${kb.toFixed(1)} kB, compressed; at most ${MOST_KB} kB are allowed`)
    this.info(`the page has ${kb.toFixed(1)} kB, compressed`)
  },
}

// The page is served under a token, so all its URLs are relative. Its policy allows files of its own, and nothing in the text of the page.
export default defineConfig({
  root: import.meta.dirname,
  base: './',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  plugins: [size],
  build: {
    outDir: '../dist/page',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
})

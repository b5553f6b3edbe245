// Is a file one thought? No source file has more than 400 lines, no test or script more than 600, no function more than 80. (The
// functions of C are check-c's.)
// `node scripts/check-sizes.mjs packages/client` looks at one folder.
import { readFileSync } from 'node:fs'
import ts from 'typescript'
import { report, root, sourceFiles, wanted } from './source-files.mjs'

const MOST = { source: 400, test: 600, function: 80 }

const isSource = (file) => /^(packages|apps|native|kernel)\/.*[.](tsx?|mjs|c|h)$/.test(file)
const isTest = (file) =>
  /^(tests|e2e|scripts|[.]ci)\/.*[.](ts|mjs|c)$/.test(file) || /[.]test[.]ts$|^packages\/[^/]+\/testing\//.test(file)

const findings = []
for (const file of sourceFiles().filter(wanted(process.argv.slice(2)))) {
  const kind = isTest(file) ? 'test' : isSource(file) ? 'source' : undefined
  if (kind === undefined) continue
  const text = readFileSync(`${root}${file}`, 'utf8')
  const lines = text.trimEnd().split('\n')
  if (lines.length > MOST[kind]) findings.push({ file, line: 1, text: `${lines.length} lines; at most ${MOST[kind]}` })
  for (const { name, line, length } of /[.][ch]$/.test(file) ? [] : functionsOf(file, text))
    if (length > MOST.function) findings.push({ file, line, text: `${name} has ${length} lines; at most ${MOST.function}` })
}
report('check-sizes', findings)

function functionsOf(file, text) {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const found = []
  const lineOf = (at) => source.getLineAndCharacterOfPosition(at).line + 1
  const visit = (node) => {
    if (ts.isFunctionLike(node) && node.body !== undefined && !isGroupOfTests(node)) {
      const [from, to] = [lineOf(node.getStart()), lineOf(node.end)]
      found.push({ name: nameOf(node), line: from, length: to - from + 1 })
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return found
}

/** `describe('…', () => { … })` is a chapter, not a function. So is a list of tests of the compliance suites. */
function isGroupOfTests({ parent, type }) {
  if (type !== undefined && /^Test<.*>\[\]$/.test(type.getText())) return true
  return ts.isCallExpression(parent) && /^(describe|suite)\b/.test(parent.expression.getText())
}

function nameOf({ name, parent }) {
  const named = name ?? (ts.isVariableDeclaration(parent) || ts.isPropertyAssignment(parent) ? parent.name : undefined)
  return named === undefined ? 'a function' : `${named.getText()}()`
}

// Plain English, in everything that a person reads: Markdown, comments, docstrings, strings. Says what to write instead of a word, and
// where a line of Markdown is longer than 100 columns. `node scripts/check-words.mjs packages/client` looks at one folder.
//
// Where a word is right, its line says so: `// words: behind`, or `<!-- words: behind -->` in Markdown. In a line of its own
// the comment speaks of the next line.
import { readFileSync } from 'node:fs'
import ts from 'typescript'
import { report, root, sourceFiles, wanted } from './source-files.mjs'

const MARKDOWN_COLUMNS = 100

/** What is not written, and what is written instead. Where words before or after make it right, the pattern looks at them. */
const PLACE = String.raw`(?:(?:an?|the|that|this|its|each|every|whose|one of)\s+)?(?:[\w-]+\s+){0,3}?(?:sockets?|dialer|server|path|ports?|proxy|value|descriptor|interface|VMM|connection|vsock|window|\d)`
const WORDS = [
  [/\bwho(so)?ever\b/gi, 'name who it is: the caller, the peer, the driver, the guest'],
  [/\b(some|every)(body|one)\b/gi, 'name who it is: the caller, the peer, the driver, the guest'],
  [/(?<!['"/-])\bnobody\b(?!['"])|\bno one\b/gi, '"there is no …", or name who does not'],
  [/(?<!\b(first|only|last|same|next|each|every|another) )\bone (that|who|which)\b/gi, 'name it: "a request that …"'],
  [
    new RegExp(String.raw`(?<!\b(leav|left)\w*\b[^.]{0,40})(?<!\b(nothing|is|stays?) |#)\bbehind\b(?!\s+${PLACE}|[.(])`, 'gi'),
    '"after", for time and order',
  ],
  [/(?<!\b(go|reach\w*|run) )\bpast\b(?! (the|its|their|an?) end)/gi, '"after" or "beyond", for time and order'],
  [/\b(anew|afresh)\b/gi, '"again", or "a new …"'],
  [/(?<!\bthere )\b(is|are|was|were) none\b(?! of)/gi, '"is not a …", or "there is no …"'],
  [/(?<!\bthere )\b(is|are) no (?!longer\b|more\b|less\b|later\b|earlier\b|different\b|other than\b)/gi, '"is not a …"'],
  [/\btwice is once\b/gi, '"Idempotent."'],
  [/\b(has|have|had)(n't| not) got\b/gi, '"does not have"'],
  [/\b(there|here|where)(of|in|by|upon|with)\b|\b(hence|thence|whence|lest|albeit|hitherto|nought)\b/gi, 'a word of today'],
  [/\bleavers?\b/gi, 'the name of the field'],
  [/\bbooks\b/gi, '"records"'],
  [/(?<!third[ -])\bpart(y|ies)\b/gi, '"peer", "side" or "endpoint"'],
  [/[‘’‛′]/g, "a straight apostrophe (')"],
  [/[“”„″]/g, 'a straight quote (")'],
]

const findings = []
const files = sourceFiles().filter(wanted(process.argv.slice(2)))
for (const file of files) {
  if (file === 'scripts/check-words.mjs' || /(^|\/)(fixtures|vectors)\//.test(file)) continue
  const text = /[.](md|tsx?|mjs|cjs|c|h)$/.test(file) || file === '.ci/run' ? readFileSync(`${root}${file}`, 'utf8') : undefined
  if (text === undefined) continue
  const lines = text.split('\n')
  // One line of a paragraph may end where the next begins: a pair of words is seen across.
  const prose = file.endsWith('.md') ? proseOfMarkdown(text) : /[.](tsx?|mjs|cjs)$/.test(file) ? proseOfScript(file, text) : text
  for (const [pattern, write] of WORDS)
    for (const { 0: word, index } of prose.matchAll(pattern)) {
      const line = prose.slice(0, index).split('\n').length
      if (!isAllowed(lines, line, word)) findings.push({ file, line, text: `"${word.trim()}": write ${write}` })
    }
  if (file.endsWith('.md')) findings.push(...tooLong(file, prose, lines))
}
findings.sort((a, b) => files.indexOf(a.file) - files.indexOf(b.file) || a.line - b.line)
report('check-words', findings)

function isAllowed(lines, line, word) {
  const own = /^\s*(\/\/|<!--|#|\/\*)\s*words:/
  const marks = [lines[line - 1], own.test(lines[line - 2] ?? '') ? lines[line - 2] : '']
  return marks.some((mark) => mark?.match(/(?:\/\/|<!--|#|\/\*) words: ([^>*]+)/)?.[1].includes(word.trim().toLowerCase()))
}

/** A text of the same lines and columns, with blanks for all that no person reads as a sentence. */
function blanked(text) {
  return text.replace(/[^\n]/g, ' ')
}

/** Without code, and without what links lead to. */
function proseOfMarkdown(text) {
  return text
    .replace(/^( *)(```|~~~).*?^ *\2/gms, blanked)
    .replace(/^---\n.*?^---\n/ms, (front, at) => (at === 0 ? blanked(front) : front))
    .replace(/`[^`\n]*`/g, blanked)
    .replace(/\]\([^)]*\)/g, blanked)
    .replace(/<!--.*?-->/gs, blanked)
    .replace(/https?:\/\/\S+/g, blanked)
}

/** Comments and strings. */
function proseOfScript(file, text) {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  let prose = ''
  let end = 0
  const keep = (from, to) => {
    prose += blanked(text.slice(end, from)) + text.slice(from, to)
    end = to
  }
  const visit = (node) => {
    const children = node.getChildren(source)
    if (children.length > 0) {
      for (const child of children) visit(child)
      return
    }
    // What is between two tokens is blanks and comments.
    if (node.getStart(source) > node.pos) keep(node.pos, node.getStart(source))
    const isText = ts.isStringLiteral(node) || ts.isTemplateLiteralToken(node)
    if (isText && !isCode(file, node)) keep(node.getStart(source), node.end)
  }
  visit(source)
  // Code in comments is not English, either.
  return (prose + blanked(text.slice(end))).replace(/`[^`\n]*`/g, (code, at) => (isInComment(prose, at) ? blanked(code) : code))
}

/** Names of modules, and the lines of code that a fault finds and puts there: of its strings only the first is for people. */
function isCode(file, node) {
  const { parent } = node
  if (file.startsWith('scripts/faults/') && ts.isCallExpression(parent)) return parent.arguments[0] !== node
  return ts.isImportDeclaration(parent) || ts.isExportDeclaration(parent)
}

function isInComment(prose, at) {
  const line = prose.slice(prose.lastIndexOf('\n', at) + 1, at)
  return /^\s*(\*|\/\*|\/\/)|\s\/\/\s/.test(line)
}

/** Lines of Markdown that are too long: not those of tables and code, nor what a link leads to. */
function tooLong(file, prose, lines) {
  const written = prose.split('\n')
  return lines.flatMap((text, index) => {
    const isCode = text.trim() !== '' && written[index].trim() === ''
    const shown = text.replace(/\]\([^)]*\)/g, '](…)').replace(/https?:\/\/\S+/g, 'https://…')
    if (isCode || /^\s*\|/.test(text) || [...shown].length <= MARKDOWN_COLUMNS) return []
    return { file, line: index + 1, text: `${[...shown].length} columns; at most ${MARKDOWN_COLUMNS}` }
  })
}

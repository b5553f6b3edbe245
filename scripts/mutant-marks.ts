// Which tests run the line of a fault? In the run without faults each place of a fault is marked: the innermost function or block around
// what the fault changes notes the fault's number when it runs. mutant-setup.ts writes down what a test file has noted.
import ts from 'typescript'

/** Where a fault changes a source file. */
export interface Place {
  /** The fault's number. */
  id: number
  /** Relative to the root. */
  file: string
  find: string
  replace: string
}

interface Insertion {
  at: number
  text: string
}

declare global {
  /** Numbers of the faults whose places were run. */
  var upcallMarks: Set<number> | undefined
}

/** The same source with a mark at each place. */
export function mark(source: string, places: readonly Place[]): string {
  const file = ts.createSourceFile('source.ts', source, ts.ScriptTarget.Latest, true)
  const insertions = places.flatMap((place) => marksOf(file, place))
  // From the last to the first, so that the offsets stay true.
  insertions.sort((a, b) => b.at - a.at)
  return insertions.reduce((text, { at, text: mark }) => text.slice(0, at) + mark + text.slice(at), source)
}

function marksOf(file: ts.SourceFile, { id, find, replace }: Place): Insertion[] {
  const note = `(globalThis.upcallMarks ??= new Set()).add(${id})`
  const found = file.text.indexOf(find)
  if (found < 0) return []
  const [before, after] = common(find, replace)
  const [from, to] = [found + before, found + find.length - after]
  const node = innermost(file, from, to)
  if (node !== undefined) return noteIn(node, note)
  // Nothing of a constant runs when it is used: what names it may see it.
  const constant = file.statements.find((statement) => ts.isVariableStatement(statement) && holds(statement, from, to))
  const names =
    constant === undefined
      ? []
      : (constant as ts.VariableStatement).declarationList.declarations.map(({ name }) => name.getText())
  const users = isExported(constant) ? [] : usersOf(file, names)
  if (users.length === 0 || users.includes(undefined)) return [{ at: 0, text: `;${note};` }]
  return [...new Set(users)].flatMap((user) => noteIn(user!, note))
}

/** How many characters at the start and at the end of both are the same. */
function common(a: string, b: string): [before: number, after: number] {
  const most = Math.min(a.length, b.length)
  let before = 0
  while (before < most && a[before] === b[before]) before++
  let after = 0
  while (after < most - before && a.at(-1 - after) === b.at(-1 - after)) after++
  return [before, after]
}

const holds = (node: ts.Node, from: number, to: number) => node.getFullStart() <= from && to <= node.end

/** What can be made to note that it runs. */
type Markable = ts.Block | ts.Expression

/** The smallest part around this piece of text that is run as a whole, if it is not the module. */
function innermost(node: ts.Node, from: number, to: number, best?: Markable): Markable | undefined {
  const inside = markable(node, from, to) ?? best
  const child = ts.forEachChild(node, (child) => (holds(child, from, to) ? child : undefined))
  return child === undefined ? inside : innermost(child, from, to, inside)
}

function markable(node: ts.Node, from: number, to: number): Markable | undefined {
  // A change of a function's head, such as the default of a parameter, is seen when the function is called.
  if (ts.isFunctionLike(node) && 'body' in node && node.body !== undefined) return node.body as ts.Block | ts.Expression
  if (ts.isBlock(node) && node.getStart() < from && to < node.end) return node
  if (ts.isPropertyDeclaration(node) && node.initializer !== undefined && holds(node.initializer, from, to))
    return node.initializer
  return undefined
}

/** The innermost parts that name one of these; `undefined` for the module itself. */
function usersOf(file: ts.SourceFile, names: readonly string[]): (Markable | undefined)[] {
  const users: (Markable | undefined)[] = []
  const visit = (node: ts.Node) => {
    const declares = ts.isVariableDeclaration(node.parent ?? node) && (node.parent as ts.VariableDeclaration).name === node
    if (ts.isIdentifier(node) && names.includes(node.text) && !declares) users.push(innermost(file, node.getStart(), node.end))
    ts.forEachChild(node, visit)
  }
  visit(file)
  return users
}

function isExported(node: ts.Statement | undefined): boolean {
  return (
    node !== undefined &&
    ts.canHaveModifiers(node) &&
    (ts.getModifiers(node) ?? []).some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)
  )
}

function noteIn(node: Markable, note: string): Insertion[] {
  if (ts.isBlock(node)) return [{ at: node.getStart() + 1, text: `;${note};` }]
  return [
    { at: node.getStart(), text: `(${note}, ` },
    { at: node.end, text: ')' },
  ]
}

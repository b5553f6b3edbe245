import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'

/** What an object has besides its code if it makes an error. */
const FIELDS: ReadonlySet<string> = new Set(['what', 'subject', 'op', 'next', 'syscall'])

/**
 * The codes of the errors in the sources, each with the packages that have it: the unions `…ErrorCode`, the type arguments of
 * `FieldError`, the literals in objects that errors are made of, and errnos that are passed to a function.
 */
export function codesIn(root: string): ReadonlyMap<string, ReadonlySet<string>> {
  const codes = new Map<string, Set<string>>()
  for (const folder of ['packages', 'apps'])
    for (const name of readdirSync(join(root, folder)))
      for (const file of readdirSync(join(root, folder, name, 'src'), { recursive: true, encoding: 'utf8' }))
        if (file.endsWith('.ts') && !file.endsWith('.test.ts'))
          for (const code of codesOf(join(root, folder, name, 'src', file)))
            codes.set(code, (codes.get(code) ?? new Set()).add(`${folder}/${name}`))
  return codes
}

function codesOf(path: string): ReadonlySet<string> {
  const codes = new Set<string>()
  const literals = (node: ts.Node): void => {
    if (ts.isStringLiteral(node) && /^[A-Z][A-Z0-9_]+$/.test(node.text)) codes.add(node.text)
    ts.forEachChild(node, literals)
  }
  const visit = (node: ts.Node): void => {
    if (ts.isTypeAliasDeclaration(node) && node.name.text.endsWith('ErrorCode')) literals(node.type)
    if (ts.isExpressionWithTypeArguments(node) && node.expression.getText() === 'FieldError')
      node.typeArguments?.forEach(literals)
    if (ts.isPropertyDeclaration(node) && node.name.getText() === 'code' && node.initializer) literals(node.initializer)
    if (ts.isObjectLiteralExpression(node)) {
      const code = node.properties.find((property) => property.name?.getText() === 'code')
      const isError = node.properties.some((each) => ts.isSpreadAssignment(each) || FIELDS.has(each.name?.getText() ?? ''))
      if (isError && code !== undefined && ts.isPropertyAssignment(code)) literals(code.initializer)
    }
    // An errno that a function makes an error of.
    if ((ts.isCallExpression(node) || ts.isNewExpression(node)) && /wrong|error/i.test(node.expression.getText()))
      for (const each of node.arguments ?? []) if (ts.isStringLiteral(each) && /^E[A-Z]{3,}$/.test(each.text)) literals(each)
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true))
  return codes
}

// A rule for ESLint: no program reads the text of an error. It branches on `code`, and words its own text from `what`, `next` and
// `subject` (packages/foundation/src/error.ts). A line that hands the text to a person has the comment `// prints`, on it or above it.
// So has the one function that reads a foreign program's text, with what it reads: `// reads the text of QEMU`.
import ts from 'typescript'

const MARK = /^\s*(prints|reads the text of )/
const TEXTS = new Set(['message'])

/** @type {import('eslint').Rule.RuleModule} */
export const noMessageRead = {
  meta: {
    type: 'problem',
    schema: [],
    messages: {
      read: 'Reads the text of an error. Use its fields, textOf() for a foreign one, or mark a printer with "// prints".',
    },
  },
  create(context) {
    const { sourceCode } = context
    const { program, esTreeNodeToTSNodeMap } = sourceCode.parserServices
    const checker = program.getTypeChecker()
    const marked = new Set()
    for (const { value, loc } of sourceCode.getAllComments()) if (MARK.test(value)) marked.add(loc.end.line)

    /** Whether it is an error, whatever it is beside that. */
    function isError(node) {
      const type = checker.getTypeAtLocation(esTreeNodeToTSNodeMap.get(node))
      return (type.isUnionOrIntersection() ? type.types : [type]).some(isErrorType)
    }
    /** What has no known type may be an error as well. */
    function mayBeError(node) {
      const { flags } = checker.getTypeAtLocation(esTreeNodeToTSNodeMap.get(node))
      return (flags & ts.TypeFlags.Any) !== 0 || isError(node)
    }
    function isErrorType(type) {
      if (type.flags & (ts.TypeFlags.Any | ts.TypeFlags.Never)) return false
      const constraint = checker.getBaseConstraintOfType(type) ?? type
      return ['name', 'message', 'stack'].every((name) => checker.getPropertyOfType(constraint, name) !== undefined)
    }
    function report(node) {
      const { line } = node.loc.start
      if (!marked.has(line) && !marked.has(line - 1) && !marked.has(node.loc.end.line))
        context.report({ node, messageId: 'read' })
    }

    return {
      MemberExpression(node) {
        if (node.computed || !TEXTS.has(node.property.name)) return
        const { parent } = node
        if (parent.type === 'AssignmentExpression' && parent.left === node) return
        if (mayBeError(node.object)) report(node.property)
      },
      ObjectPattern(node) {
        const property = node.properties.find(({ key, computed }) => key !== undefined && !computed && TEXTS.has(key.name))
        if (property !== undefined && mayBeError(node)) report(property)
      },
      TemplateLiteral(node) {
        if (node.parent.type === 'TaggedTemplateExpression') return
        for (const expression of node.expressions) if (isError(expression)) report(expression)
      },
      CallExpression({ callee, arguments: [argument] }) {
        if (callee.type === 'Identifier' && callee.name === 'String' && argument !== undefined && isError(argument))
          report(argument)
      },
    }
  },
}

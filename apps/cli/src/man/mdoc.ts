// Plain text as mdoc(7), the language of manual pages on Linux and the BSDs.

/** Text of a line that is not a macro's. */
export function text(plain: string): string {
  return escaped(plain).replace(/^(?=[.'])/, '\\&')
}

/** Running text: each sentence begins a line, as mdoc wants it. */
export function prose(plain: string): string[] {
  return plain.split(/(?<=[.!?]\)?) +(?=\S)/).map(text)
}

/** A macro with one argument, which may have blanks. */
export function macro(name: string, argument: string): string {
  return `.${name} "${escaped(argument).replaceAll('"', '\\(dq')}"`
}

function escaped(plain: string): string {
  return plain
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/[^ -~]/gu, (letter) => `\\[u${letter.codePointAt(0)?.toString(16).toUpperCase().padStart(4, '0')}]`)
}

/** The text in front of the first heading, and what is under each: a heading is a line of its own that ends with a colon. */
export function headed(plain: string): { sections: ReadonlyMap<string, string> } {
  const sections = new Map<string, string>()
  let name = ''
  for (const line of plain.split('\n')) {
    const [, heading] = /^([A-Z][A-Za-z ]*):$/.exec(line) ?? []
    if (heading !== undefined) name = heading
    else sections.set(name, `${sections.get(name) ?? ''}${line}\n`)
  }
  return { sections }
}

/** Paragraphs, and blocks of indented lines, which stay as they are. */
export function formatted(plain: string): string[] {
  const lines: string[] = []
  let [block, pause] = [false, false]
  for (const line of plain.replace(/^\n+|\s+$/g, '').split('\n')) {
    if (line === '') {
      pause = true
      continue
    }
    const indented = line.startsWith('  ')
    if (block && !indented) lines.push('.Ed')
    if (!block && indented) lines.push('.Bd -literal -offset indent')
    else if (pause && block && indented) lines.push('')
    else if (!indented && (pause || block || lines.length === 0)) lines.push('.Pp')
    lines.push(...(indented ? [text(line.slice(2))] : prose(line)))
    ;[block, pause] = [indented, false]
  }
  if (block) lines.push('.Ed')
  return lines.length === 1 ? [] : lines
}

import { COLUMNS, type Line, type Style } from './text.js'

export interface RecordedLine {
  /** Milliseconds since the recording began. */
  readonly at: number
  readonly line: Line
}

const FONT = 13
const CHAR = 7.83
const LEADING = 18
const PADDING = 16
const TITLE = 34
/** Lines that are seen at once. */
const ROWS = 34
/** How long the end is shown before it starts again, in seconds. */
const HOLD = 8

const COLOURS: Record<Style, string> = {
  bold: '#f0f6fc',
  dim: '#8b949e',
  green: '#56d364',
  red: '#ff7b72',
  yellow: '#e3b341',
  cyan: '#76e3ea',
  magenta: '#d2a8ff',
}

/**
 * A terminal recording as one SVG: lines appear when they appeared, and scroll up when there is no room. Without animation (a reader who
 * prefers reduced motion, a converter to another format) it shows the end.
 */
export function toSvg(recording: readonly RecordedLine[], title: string): string {
  const total = (recording.at(-1)?.at ?? 0) / 1000 + HOLD
  const width = Math.ceil(COLUMNS * CHAR + 2 * PADDING)
  const height = TITLE + ROWS * LEADING + PADDING
  const lines = recording.map(({ line }, at) => text(line, at)).join('\n')
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${xml(title)}">
<style>
text{font:${FONT}px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#c9d1d9;white-space:pre}
${Object.entries(COLOURS)
  .map(([style, colour]) => `.${style}{fill:${colour}${style === 'bold' ? ';font-weight:700' : ''}}`)
  .join('\n')}
.l{animation:${total.toFixed(2)}s step-end infinite}
${recording.map(({ at }, index) => appear(index, at / 1000, total)).join('\n')}
${scroll(recording, total)}
@media (prefers-reduced-motion:reduce){.l,.s{animation:none!important}}
</style>
<rect width="${width}" height="${height}" rx="8" fill="#0d1117"/>
<circle cx="20" cy="17" r="5.5" fill="#ff5f57"/><circle cx="39" cy="17" r="5.5" fill="#febc2e"/><circle cx="58" cy="17" r="5.5" fill="#28c840"/>
<text x="${width / 2}" y="21" text-anchor="middle" class="dim">${xml(title)}</text>
<svg x="0" y="${TITLE}" width="${width}" height="${ROWS * LEADING}">
<g class="s" transform="translate(0 ${-overflow(recording.length) * LEADING})">
${lines}
</g>
</svg>
</svg>
`
}

function text(line: Line, at: number): string {
  const y = at * LEADING + FONT
  let column = 0
  const spans = line.map(({ text, style }) => {
    // Each span has its own place and length, so that no font can shift the span after it.
    const x = PADDING + column * CHAR
    column += text.length
    const length = (text.length * CHAR).toFixed(2)
    return `<tspan x="${x.toFixed(2)}" textLength="${length}" lengthAdjust="spacingAndGlyphs"${style ? ` class="${style}"` : ''}>${xml(text)}</tspan>`
  })
  return `<g class="l l${at}"><text y="${y}" xml:space="preserve">${spans.join('')}</text></g>`
}

// No more specific than the rule for all lines, so that the name here wins over the shorthand there.
function appear(index: number, at: number, total: number): string {
  const percent = ((at / total) * 100).toFixed(2)
  return `.l${index}{animation-name:a${index}}@keyframes a${index}{0%{opacity:0}${percent}%{opacity:1}}`
}

/** Lines that have left the view when `count` are there. */
function overflow(count: number): number {
  return Math.max(0, count - ROWS)
}

function scroll(recording: readonly RecordedLine[], total: number): string {
  const frames = new Map([['0.00', 0]])
  recording.forEach(({ at }, index) => {
    frames.set(((at / 1000 / total) * 100).toFixed(2), overflow(index + 1) * LEADING)
  })
  const steps = [...frames].map(([percent, offset]) => `${percent}%{transform:translateY(${-offset}px)}`).join('')
  return `.s{animation:scroll ${total.toFixed(2)}s step-end infinite}@keyframes scroll{${steps}}`
}

function xml(text: string): string {
  return text.replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`)
}

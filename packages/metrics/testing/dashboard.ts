import { readFileSync } from 'node:fs'

interface Target {
  readonly expr: string
  readonly legendFormat: string
}

interface GridPos {
  readonly h: number
  readonly w: number
  readonly x: number
  readonly y: number
}

export interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly gridPos: GridPos
  readonly targets?: readonly Target[]
}

export interface Dashboard {
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly { readonly name: string; readonly definition?: string }[] }
}

export const dashboard = JSON.parse(readFileSync(new URL('../grafana/dashboard.json', import.meta.url), 'utf8')) as Dashboard

export const targets = dashboard.panels.flatMap(({ title, targets = [] }) => targets.map((target) => ({ title, ...target })))

/** The expression as Grafana sends it, over the last minute. */
export function sent(expr: string): string {
  return expr
    .replaceAll('$__rate_interval', '1m')
    .replaceAll('$__range', '1h')
    .replaceAll(/"\$(job|instance)"/g, '".*"')
}

/** The metrics that an expression reads, each with all labels that the panel takes for the metric's. */
export function readsOf({ expr, legendFormat = '' }: { expr: string; legendFormat?: string }): Map<string, Set<string>> {
  const grouped = [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, labels]) => labels!.split(', '))
  const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label!)
  const reads = new Map<string, Set<string>>()
  for (const [, name, selector] of expr.matchAll(/([a-z_:]+)\{([^}]*)\}/g)) {
    const selected = [...selector!.matchAll(/(\w+)\s*[=!]/g)].map(([, label]) => label!)
    reads.set(name!, new Set([...(reads.get(name!) ?? []), ...grouped, ...shown, ...selected]))
  }
  return reads
}

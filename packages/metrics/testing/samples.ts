/** The samples of a scrape, by metric and labels: `of('upcall_requests_total')` is `{ 'op=cpu.add,outcome=ok': 1 }`. */
export function samplesOf(text: string): { of(name: string): Record<string, number>; readonly names: ReadonlySet<string> } {
  const metrics = new Map<string, Record<string, number>>()
  for (const line of text.split('\n')) {
    const match = /^([a-z_:]+)(?:\{(.*)\})? (\S+)$/i.exec(line)
    if (match === null) continue
    const [, name, labels = '', value] = match
    const metric = metrics.get(name!) ?? {}
    metrics.set(name!, metric)
    const parts = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, of]) => `${label}=${of}`)
    // Where there is a bound, it is what tells the samples apart, and comes last.
    metric[parts.sort().join(',')] = Number(value)
  }
  return { of: (name) => metrics.get(name) ?? {}, names: new Set(metrics.keys()) }
}

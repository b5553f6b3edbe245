/** A check that also fills a row of the table. True if it passed. */
export async function exercise(checks, table, { kernel, name, what, body }) {
  const row = { ...(kernel && { kernel }), exercise: name, what, outcome: 'FAILED', seconds: 0 }
  table.push(row)
  const started = performance.now()
  const passed = await checks.check(`${kernel ? `${kernel}: ` : ''}${name}: ${what}`, async () => {
    const outcome = await body()
    row.outcome = outcome ?? 'as it should be'
    return true
  })
  row.seconds = Number(((performance.now() - started) / 1000).toFixed(1))
  return passed === true
}

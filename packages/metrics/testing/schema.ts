/** As much of JSON Schema as the dashboard's needs. */
export interface Schema {
  readonly type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean'
  readonly enum?: readonly unknown[]
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly required?: readonly string[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
  readonly minItems?: number
  /** The schema of an object, by the value of its `type`. */
  readonly byType?: Readonly<Record<string, Schema>>
}

/** What of a value is against its schema, one line each. */
export function violations(schema: Schema, value: unknown, path = '$'): string[] {
  const wrong = (what: string) => [`${path}: ${what}, got ${JSON.stringify(value)?.slice(0, 80)}`]
  if (schema.type !== undefined && !isOfType(schema.type, value)) return wrong(`must be of type ${schema.type}`)
  if (schema.enum !== undefined && !schema.enum.includes(value)) return wrong(`must be one of ${schema.enum.join(', ')}`)
  if (typeof value === 'string' && !new RegExp(schema.pattern ?? '').test(value)) return wrong(`must match ${schema.pattern}`)
  if (typeof value === 'number' && !(value >= (schema.minimum ?? -Infinity) && value <= (schema.maximum ?? Infinity)))
    return wrong(`must be from ${schema.minimum} to ${schema.maximum}`)
  if (Array.isArray(value)) {
    if (value.length < (schema.minItems ?? 0)) return wrong(`must have ${schema.minItems} items`)
    return value.flatMap((item, i) => (schema.items === undefined ? [] : violations(schema.items, item, `${path}[${i}]`)))
  }
  if (typeof value !== 'object' || value === null) return []
  const fields = value as Record<string, unknown>
  const missing = (schema.required ?? []).filter((key) => !(key in fields)).map((key) => `${path}: ${key} is missing`)
  const inside = Object.entries(schema.properties ?? {}).flatMap(([key, of]) =>
    key in fields ? violations(of, fields[key], `${path}.${key}`) : [],
  )
  if (schema.byType === undefined) return [...missing, ...inside]
  const own = schema.byType[String(fields.type)]
  return [...missing, ...inside, ...(own === undefined ? wrong('is of no known type') : violations(own, value, path))]
}

function isOfType(type: NonNullable<Schema['type']>, value: unknown): boolean {
  switch (type) {
    case 'array':
      return Array.isArray(value)
    case 'object':
      return typeof value === 'object' && value !== null && !Array.isArray(value)
    case 'integer':
      return Number.isInteger(value)
    default:
      return typeof value === type
  }
}

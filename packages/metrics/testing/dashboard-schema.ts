import type { Schema } from './schema.js'

// The classic model of a Grafana dashboard, as far as the dashboard uses it: Grafana's documentation ("Dashboard JSON model") and the
// fields of its own schema, kinds/dashboard/dashboard_kind.cue. What has to be there is what an import leaves no default for.

const text = { type: 'string' } as const
const flag = { type: 'boolean' } as const

/** What names the data source is the variable, so that an import works with any. */
const DATASOURCE: Schema = {
  type: 'object',
  required: ['type', 'uid'],
  properties: { type: { enum: ['prometheus'] }, uid: { pattern: '^[$][{]datasource[}]$' } },
}

const COLOR: Schema = {
  type: 'object',
  required: ['mode'],
  properties: {
    mode: { enum: ['thresholds', 'palette-classic', 'palette-saturated', 'continuous-GrYlRd', 'fixed'] },
    fixedColor: text,
  },
}

const THRESHOLDS: Schema = {
  type: 'object',
  required: ['mode', 'steps'],
  properties: {
    mode: { enum: ['absolute', 'percentage'] },
    steps: { type: 'array', minItems: 1, items: { type: 'object', required: ['color', 'value'], properties: { color: text } } },
  },
}

const GRID_POS: Schema = {
  type: 'object',
  required: ['h', 'w', 'x', 'y'],
  properties: {
    h: { type: 'integer', minimum: 1, maximum: 100 },
    w: { type: 'integer', minimum: 1, maximum: 24 },
    x: { type: 'integer', minimum: 0, maximum: 23 },
    y: { type: 'integer', minimum: 0, maximum: 1000 },
  },
}

const TARGET: Schema = {
  type: 'object',
  required: ['refId', 'datasource', 'expr', 'legendFormat'],
  properties: {
    refId: { type: 'string', pattern: '^[A-Z]$' },
    datasource: DATASOURCE,
    expr: text,
    legendFormat: text,
    range: flag,
  },
}

const FIELD_CONFIG: Schema = {
  type: 'object',
  required: ['defaults', 'overrides'],
  properties: {
    defaults: {
      type: 'object',
      required: ['unit', 'color'],
      // Grafana's ids of units.
      properties: { unit: { enum: ['short', 's', 'reqps', 'pps', 'Bps', 'percentunit'] }, color: COLOR, thresholds: THRESHOLDS },
    },
    overrides: {
      type: 'array',
      items: {
        type: 'object',
        required: ['matcher', 'properties'],
        properties: {
          matcher: { type: 'object', required: ['id', 'options'], properties: { id: { enum: ['byName'] }, options: text } },
          properties: { type: 'array', items: { type: 'object', required: ['id', 'value'], properties: { id: text } } },
        },
      },
    },
  },
}

const chart = (options: Schema): Schema => ({
  type: 'object',
  required: ['description', 'datasource', 'fieldConfig', 'options', 'targets'],
  properties: {
    description: { type: 'string', pattern: '[.]$' },
    datasource: DATASOURCE,
    fieldConfig: FIELD_CONFIG,
    options,
    targets: { type: 'array', minItems: 1, items: TARGET },
  },
})

const PANEL: Schema = {
  type: 'object',
  required: ['id', 'type', 'title', 'gridPos'],
  properties: { id: { type: 'integer', minimum: 1 }, title: text, gridPos: GRID_POS },
  byType: {
    row: { required: ['collapsed', 'panels'], properties: { collapsed: flag, panels: { type: 'array' } } },
    timeseries: chart({
      type: 'object',
      required: ['legend', 'tooltip'],
      properties: {
        legend: {
          type: 'object',
          properties: { displayMode: { enum: ['list', 'table', 'hidden'] }, placement: { enum: ['bottom', 'right'] } },
        },
        tooltip: {
          type: 'object',
          properties: { mode: { enum: ['single', 'multi', 'none'] }, sort: { enum: ['none', 'asc', 'desc'] } },
        },
      },
    }),
    stat: chart({
      type: 'object',
      required: ['reduceOptions'],
      properties: {
        reduceOptions: { type: 'object', required: ['calcs'], properties: { calcs: { type: 'array', items: text } } },
      },
    }),
  },
}

const VARIABLE: Schema = {
  type: 'object',
  required: ['name', 'label', 'type', 'query', 'refresh'],
  properties: {
    name: { type: 'string', pattern: '^\\w+$' },
    label: text,
    hide: { enum: [0, 1, 2] },
    refresh: { enum: [0, 1, 2] },
    skipUrlSync: flag,
    multi: flag,
    includeAll: flag,
  },
  byType: {
    datasource: { properties: { query: { enum: ['prometheus'] } } },
    query: {
      required: ['datasource', 'definition'],
      properties: { datasource: DATASOURCE, query: { type: 'object', required: ['query', 'refId'] } },
    },
  },
}

export const DASHBOARD: Schema = {
  type: 'object',
  required: ['uid', 'title', 'schemaVersion', 'panels', 'templating', 'time', 'editable', 'graphTooltip'],
  properties: {
    uid: { type: 'string', pattern: '^[a-zA-Z0-9_-]{8,40}$' },
    title: text,
    description: text,
    tags: { type: 'array', items: text },
    timezone: { enum: ['browser', 'utc'] },
    editable: flag,
    graphTooltip: { enum: [0, 1, 2] },
    time: { type: 'object', required: ['from', 'to'], properties: { from: text, to: text } },
    refresh: { type: 'string', pattern: '^\\d+[smhd]$' },
    schemaVersion: { type: 'integer', minimum: 36, maximum: 0xffff },
    version: { type: 'integer' },
    panels: { type: 'array', minItems: 1, items: PANEL },
    templating: { type: 'object', required: ['list'], properties: { list: { type: 'array', items: VARIABLE } } },
    annotations: {
      type: 'object',
      required: ['list'],
      properties: { list: { type: 'array', items: { type: 'object', required: ['name', 'datasource', 'enable', 'iconColor'] } } },
    },
    links: { type: 'array' },
  },
}

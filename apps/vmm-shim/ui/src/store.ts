// The connection to the program: one stream of events, into signals.

import { computed, signal } from '@preact/signals'
import type { OutcomeView, PageEvents } from '../../src/page/events.js'
import { changed, EMPTY, EVENTS, type Model } from './model.js'
import { announcement } from './verdict.js'

/** `gone`: the program does not know this address; it was started again, say. */
export type Link = 'connecting' | 'live' | 'lost' | 'gone'

const model = signal<Model>(EMPTY)
export const link = signal<Link>('connecting')
/** When the page heard of the program last, if the connection is lost. */
export const lostAt = signal<number | undefined>(undefined)
/** What a live region says. */
export const spoken = signal('')

export const about = computed(() => model.value.about)
export const vm = computed(() => model.value.vm)
export const session = computed(() => model.value.session)
export const previous = computed(() => model.value.previous)
export const messages = computed(() => model.value.messages)
export const outcomes = computed(() => model.value.outcomes)
export const busy = computed(() => model.value.busy)
export const consoleText = computed(() => model.value.console)

/** The time, to the second: for what shows how long ago something was. */
export const now = signal(Date.now())

const RETRY_MS = 2000
/** A resize of many vCPUs has hundreds of events in a moment. They are drawn together. */
const SHOW_MS = 30

/** What the program has told. `model` follows within {@link SHOW_MS}. */
let heard = EMPTY
let showing: ReturnType<typeof setTimeout> | undefined

/** Follows the program until the page is left. */
export function follow(): void {
  setInterval(() => {
    now.value = Date.now()
  }, 1000)
  open()
}

function open(): void {
  const source = new EventSource('events')
  for (const name of EVENTS)
    source.addEventListener(name, (event) => {
      hear(name, JSON.parse((event as MessageEvent<string>).data))
    })
  source.addEventListener('error', () => {
    if (link.value === 'live') lose()
    // The browser tries again by itself, unless it was answered with something else than events.
    if (source.readyState !== EventSource.CLOSED) return
    source.close()
    link.value = 'gone'
    setTimeout(open, RETRY_MS)
  })
}

function lose(): void {
  link.value = 'lost'
  lostAt.value = Date.now()
  say('The connection to vmm-shim is lost. The page tries again by itself.')
}

function hear<Name extends keyof PageEvents>(name: Name, data: PageEvents[Name]): void {
  if (name === 'snapshot') {
    if (link.value !== 'connecting') say('The page is connected to vmm-shim again.')
    link.value = 'live'
    lostAt.value = undefined
  }
  if (name === 'outcome') say(announcement(data as OutcomeView))
  heard = changed(heard, name, data)
  if (name === 'snapshot') show()
  else showing ??= setTimeout(show, SHOW_MS)
}

function show(): void {
  clearTimeout(showing)
  showing = undefined
  model.value = heard
}

/** Says something in the live region. */
export function say(text: string): void {
  // The same words again are a change, too: a live region that does not change is not read.
  spoken.value = spoken.value === text ? `${text} ` : text
}

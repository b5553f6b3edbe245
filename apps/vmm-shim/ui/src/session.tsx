// The client's session with the guest: its state machine, drawn, with the current state lit.

import { arrows, BEGINS, END, HEIGHT, nodes, START, WIDTH } from './diagram.js'
import { now, previous, session } from './store.js'
import { ago } from './units.js'

export function SessionPanel() {
  const { kind, since, cause } = session.value
  const current = nodes.find(({ state }) => state === kind)
  return (
    <section class="panel" aria-labelledby="session-title">
      <h2 id="session-title">Session with the guest</h2>
      <div class="session">
        <Diagram current={kind} />
        <div>
          <div>
            <p class="current">
              <b>{kind}</b> <small>for {ago(now.value - since)}</small>
            </p>
            <p>{current?.meaning}</p>
            {cause && <p class="cause">{cause}</p>}
          </div>
          <div>
            <h3>From here, and on what</h3>
            <ul class="plain ways">
              {arrows
                .filter(({ from }) => from === kind)
                .map(({ to, on }) => (
                  <li key={to}>
                    <b>{to}</b> <span>{on.join(', ')}</span>
                  </li>
                ))}
            </ul>
          </div>
        </div>
      </div>
    </section>
  )
}

function Diagram({ current }: { current: string }) {
  const from = previous.value
  // Lit arrows are drawn last, above those that they cross.
  const lit = (arrow: (typeof arrows)[number]) =>
    arrow.from === from && arrow.to === current ? 2 : arrow.from === current ? 1 : 0
  const ordered = [...arrows].sort((a, b) => lit(a) - lit(b))
  const middle = nodes.find(({ state }) => state === BEGINS)!
  const label = `The states of the session. The current one is ${current}${from && from !== current ? `, after ${from}` : ''}.`
  return (
    <svg class="diagram" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={label}>
      <g class="ends">
        <circle cx={START[0]} cy={START[1]} r="3.5" />
        <path class="line" d={`M${START[0]} ${START[1]}V${middle.y - middle.height / 2}`} />
        <path class="line" d={`M${END[0]} ${END[1] - 17}V${END[1] - 5}`} />
        <circle cx={END[0]} cy={END[1]} r="3" />
        <circle class="line" cx={END[0]} cy={END[1]} r="5.5" />
      </g>
      {ordered.map((arrow) => (
        <g key={`${arrow.from} ${arrow.to}`} class="arrow" data-lit={['', 'next', 'came'][lit(arrow)]}>
          <path class="line" d={arrow.line} />
          <path class="head" d={arrow.head} />
        </g>
      ))}
      {nodes.map(({ state, x, y, width, height }) => (
        <g key={state} class="node" data-lit={state === current || undefined}>
          <rect x={x - width / 2} y={y - height / 2} width={width} height={height} rx="3" />
          {state === current && <circle cx={x - width / 2 + 12} cy={y} r="3.5" />}
          <text x={x + (state === current ? 5 : 0)} y={y + 4.5}>
            {state}
          </text>
        </g>
      ))}
    </svg>
  )
}

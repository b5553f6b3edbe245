// How long the guest took for its replies.

import { HEIGHT, latency, WIDTH } from './latency.js'
import { messages } from './store.js'
import { milliseconds } from './units.js'

export function LatencyPanel() {
  const found = latency(messages.value)
  return (
    <section class="panel" aria-labelledby="latency-title">
      <h2 id="latency-title">
        Latency <small>{found ? lastReplies(found.points.length) : 'no reply yet'}</small>
      </h2>
      {found && (
        <>
          <div class="plot">
            <svg
              viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
              preserveAspectRatio="none"
              role="img"
              aria-label={`Round-trip times: the last ${milliseconds(found.last)}, the median ${milliseconds(found.median)}, the longest ${milliseconds(found.most)}.`}
            >
              <path class="grid" d={`M0 0H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT}H${WIDTH}`} />
              <polyline class="curve" points={found.points.map(({ x, y }) => `${x},${y}`).join(' ')} />
              <path class="dots" d={found.points.map(({ x, y }) => `M${x} ${y}h0`).join('')} />
            </svg>
            <span class="top" aria-hidden="true">
              {milliseconds(found.top)}
            </span>
            <span class="zero" aria-hidden="true">
              0
            </span>
          </div>
          <p class="words">
            <span>
              <b>last</b> {milliseconds(found.last)}
            </span>
            <span>
              <b>median</b> {milliseconds(found.median)}
            </span>
            <span>
              <b>longest</b> {milliseconds(found.most)}
            </span>
          </p>
        </>
      )}
    </section>
  )
}

function lastReplies(count: number): string {
  return count === 1 ? 'one reply' : `the last ${count} replies`
}

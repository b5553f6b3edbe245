// The whole page: what is said at the top, and the panels in the order in which they are read.

import { ConsolePanel } from './console.js'
import { Header } from './header.js'
import { LatencyPanel } from './latency-panel.js'
import { MachinePanel } from './machine.js'
import { MessagesPanel } from './messages.js'
import { Notices } from './notices.js'
import { OutcomesPanel } from './outcomes.js'
import { SessionPanel } from './session.js'
import { spoken, vm } from './store.js'

export function App() {
  return (
    <>
      <a class="skip" href="#machine">
        Skip to the machine
      </a>
      <Header />
      <Notices />
      <main>
        {vm.value && (
          <div class="band">
            <MachinePanel vm={vm.value} />
            <div class="stack">
              <SessionPanel />
              <OutcomesPanel />
            </div>
          </div>
        )}
        {vm.value && (
          <div class="band">
            <MessagesPanel />
            <div class="stack">
              <LatencyPanel />
              <ConsolePanel />
            </div>
          </div>
        )}
      </main>
      <p class="unseen" role="status">
        {spoken}
      </p>
    </>
  )
}

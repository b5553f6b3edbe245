// Commands from the host over a virtio port, so that they come through whatever becomes of the vsock device. Events and answers are
// JSON lines on stdout. e2e/vhost-user/vm.mjs is the host's end.
import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'

/** Obeys the host: each line names one of `commands`; its value, or why there is none, is the answer. */
export function obey(commands) {
  createInterface({ input: createReadStream('/dev/virtio-ports/org.upcall.control') }).on(
    'line',
    (line) => void answer(commands, JSON.parse(line)),
  )
  tell({ event: 'ready' })
}

export function tell(value) {
  console.log(JSON.stringify(value))
}

async function answer(commands, { id, run, ...options }) {
  try {
    tell({ id, value: (await commands[run](options)) ?? null })
  } catch (error) {
    tell({ id, error: error.message, code: error.code })
  }
}

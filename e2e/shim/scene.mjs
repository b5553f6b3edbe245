import assert from 'node:assert/strict'

/** One guest on which rows are played. */
export class Scene {
  constructor(checks, table, shim) {
    Object.assign(this, { checks, table, shim })
  }

  /** One event; `expected` is `{ status, outcome?, errno? }`, `look` compares what the guest says afterwards. */
  async row(event, act, expected, look = async () => {}) {
    const { machine } = this.shim
    await this.checks.check(`${machine}: ${event}`, async () => {
      const { status, body } = await act()
      const { outcome = 'ok', errno = null } = body?.fault_message ? body : {}
      const got = { status, outcome, errno }
      const wanted = { outcome: 'ok', errno: null, ...expected }
      this.table.push({ machine, event, ...got })
      assert.deepEqual(got, wanted, `${JSON.stringify(body)}`)
      await look(body)
    })
  }

  /** One event that is not a request. */
  async told(event, outcome, look) {
    const { machine } = this.shim
    await this.checks.check(`${machine}: ${event}`, async () => {
      await look()
      this.table.push({ machine, event, status: null, outcome, errno: null })
    })
  }

  call(method, path, body) {
    return this.shim.call(method, path, body)
  }

  /** The shell's output in the guest. */
  async sh(script) {
    return (await this.shim.execute(['sh', '-c', script])).stdout.trim()
  }

  /** Both by /proc/cpuinfo: how many there are, and that the APIC ids are those of the vCPUs that the VMM plugged in. */
  async cpusInGuest() {
    const count = Number(await this.sh('grep -c ^processor /proc/cpuinfo'))
    const { believed, guest } = await this.view()
    assert.deepEqual(guest.cpus.online, believed.cpus.present)
    return count
  }

  async memoryInGuest() {
    return Number(/MemTotal: +(\d+)/.exec(await this.sh('cat /proc/meminfo'))[1]) * 1024
  }

  async view() {
    return (await this.call('GET', '/vm')).body
  }
}

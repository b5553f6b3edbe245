import { expect, it } from 'vitest'
import { arrows, HEIGHT, nodes, WIDTH } from './diagram.js'
import machine from './session-machine.json'

it('draws each state and each arrow of the table, inside of the picture', () => {
  expect(nodes.map(({ state }) => state)).toEqual(machine.states)
  expect(arrows.map(({ from, to }) => [from, to])).toEqual(machine.arrows.map(({ from, to }) => [from, to]))
  for (const { line, head } of arrows) {
    const numbers = `${line} ${head}`.match(/-?[\d.]+|NaN/g)!.map(Number)
    for (const number of numbers) expect(number).toBeGreaterThanOrEqual(0)
    for (const number of numbers) expect(number).toBeLessThanOrEqual(Math.max(WIDTH, HEIGHT))
  }
})

it('ends each arrow at the state that it leads to', () => {
  for (const { from, to, head } of arrows) {
    const [x, y] = head
      .match(/^M([\d.]+) ([\d.]+)L/)!
      .slice(1)
      .map(Number) as [number, number]
    const node = nodes.find(({ state }) => state === to)!
    const across = Math.abs(x - node.x) === node.width / 2 && Math.abs(y - node.y) < node.height / 2
    const along = Math.abs(y - node.y) === node.height / 2 && Math.abs(x - node.x) < node.width / 2
    expect(across || along, `${from} to ${to}`).toBe(true)
  }
})

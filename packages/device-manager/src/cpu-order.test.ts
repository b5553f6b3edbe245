import { expect, test } from 'vitest'
import { orderCpus, type Present } from './cpu-order.js'

test("ids go out ascending for add and descending for remove, and the caller's array keeps its order", () => {
  const apicIds = Object.freeze([2, 3, 1])
  expect(orderCpus({ type: 'ADD_CPU', apicIds })).toEqual({ type: 'ADD_CPU', apicIds: [1, 2, 3] })
  expect(orderCpus({ type: 'DEL_CPU', apicIds })).toEqual({ type: 'DEL_CPU', apicIds: [3, 2, 1] })
  expect(orderCpus({ type: 'ADD_CPU', apicIds: [10, 9, 100] })).toMatchObject({ apicIds: [9, 10, 100] })
})

test.each<[string, 'ADD_CPU' | 'DEL_CPU', number[], Present | undefined, string]>([
  ['the boot CPU', 'DEL_CPU', [3, 0], undefined, 'apicIds[1]: must not be CPU 0'],
  ['an absent id', 'DEL_CPU', [3, 4], [0, 1, 2, 3], 'apicIds[1]: CPU 4 is not present'],
  ['an id above a hole', 'DEL_CPU', [3], [0, 2, 3], 'CPU 3 is above a hole'],
  ['a present id', 'ADD_CPU', [4, 2], [0, 1, 2, 3], 'apicIds[1]: CPU 2 is present already'],
  ['id 255', 'ADD_CPU', [255], undefined, 'apicIds[0]: must be at most 254, got 255'],
  ['a count as present', 'ADD_CPU', [1], 4, "present: must be the array of the vCPUs' ids on x86_64, got 4"],
])('%s is refused', (_name, type, apicIds, present, message) => {
  expect(() => orderCpus({ type, apicIds }, present)).toThrow(
    expect.objectContaining({ name: 'WireError', message: expect.stringContaining(message) }),
  )
})

test('ids that suit the present vCPUs pass', () => {
  expect(orderCpus({ type: 'DEL_CPU', apicIds: [2, 3] }, [0, 1, 2, 3])).toMatchObject({ apicIds: [3, 2] })
  expect(orderCpus({ type: 'DEL_CPU', apicIds: [2] }, [0, 2, 3])).toMatchObject({ apicIds: [2] })
  expect(orderCpus({ type: 'ADD_CPU', apicIds: [1] }, [0, 2, 3])).toMatchObject({ apicIds: [1] })
})

test('on aarch64 one vCPU has to stay', () => {
  expect(orderCpus({ type: 'DEL_CPU', count: 3 }, 4)).toEqual({ type: 'DEL_CPU', count: 3 })
  expect(() => orderCpus({ type: 'DEL_CPU', count: 4 }, 4)).toThrow(
    'count: must be less than 4, the number of vCPUs, got 4: one vCPU has to stay',
  )
  expect(() => orderCpus({ type: 'DEL_CPU', count: 4 }, [0, 1])).toThrow(
    'present: must be a number of vCPUs of at least 1 on aarch64, got an array of 2',
  )
  for (const none of [0, -1, Number.NaN])
    expect(() => orderCpus({ type: 'ADD_CPU', count: 1 }, none)).toThrow(
      'present: must be a number of vCPUs of at least 1 on aarch64',
    )
})

test.each(['ADD_CPU', 'DEL_CPU'] as const)('%s looks at each present id once, however many ids a request names', (type) => {
  const half = Array.from({ length: 127 }, (_, i) => i + 1)
  let reads = 0
  const get = (target: number[], key: string | symbol, receiver: unknown) => {
    if (typeof key === 'string' && /^\d/.test(key)) reads++
    return Reflect.get(target, key, receiver)
  }
  const present = new Proxy(type === 'ADD_CPU' ? [0] : [0, ...half], { get })
  orderCpus({ type, apicIds: half }, present)
  expect(reads).toBeLessThanOrEqual(128)
})

import { isMainThread, MessageChannel, type MessagePort, Worker, type WorkerOptions, workerData } from 'node:worker_threads'
import { checkObject, wrongType, wrongValue } from '@upcall/foundation/check'
import { VsockNetwork, type VsockNetworkOptions } from './network.js'
import type { NetworkLink } from './network-link.js'

/** A thread with a network of its own, which is linked to the network that has begun it. */
export interface NetworkThread<Data> {
  readonly worker: Worker
  readonly link: NetworkLink
  readonly data: Data
}

export interface NetworkThreadOptions<Data> extends Omit<WorkerOptions, 'workerData' | 'eval'> {
  /** What `threadNetwork()` returns in the thread: anything that can be copied there. Functions cannot. */
  readonly data: Data
}

interface ThreadData {
  readonly upcallNetworkPort: MessagePort
  readonly data: unknown
}

/**
 * Begins a thread that runs `script`, in which `threadNetwork()` is a network with a link to this one. The thread's errors and its exit are
 * events of `worker`. When it ends, `link.closed` resolves.
 *
 * @param script a file, as for `new Worker()`.
 * @throws TypeError for another network than a `VsockNetwork`, and without `options`.
 */
export function startNetworkThread<Data>(
  network: VsockNetwork,
  script: URL | string,
  options: NetworkThreadOptions<Data>,
): NetworkThread<Data> {
  if (!(network instanceof VsockNetwork)) wrongType('network', 'a VsockNetwork', network)
  checkObject('options', options)
  const { data, transferList = [], ...workerOptions } = options
  const { port1, port2 } = new MessageChannel()
  const link = network.link(port1)
  try {
    const threadData: ThreadData = { upcallNetworkPort: port2, data }
    const worker = new Worker(script, { ...workerOptions, workerData: threadData, transferList: [...transferList, port2] })
    return { worker, link, data }
  } catch (error) {
    link.close()
    throw error
  }
}

/**
 * In a thread that `startNetworkThread` has begun: a new network, which is linked to the network of the thread that began this one, and the
 * `data` that it gave. To be called once.
 *
 * @throws RangeError in any other thread.
 */
export function threadNetwork<Data>(options: Pick<VsockNetworkOptions, 'clock'> = {}): { network: VsockNetwork; data: Data } {
  const given = workerData as Partial<ThreadData> | null
  if (isMainThread || given?.upcallNetworkPort === undefined)
    wrongValue(
      'threadNetwork()',
      'called in a thread of startNetworkThread()',
      isMainThread ? 'the main thread' : 'another thread',
    )
  const network = new VsockNetwork(options)
  network.link(given.upcallNetworkPort)
  return { network, data: given.data as Data }
}

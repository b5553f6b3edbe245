import { faultsIn } from './faults-in.mjs'

const shim = faultsIn('vmm-shim', ['vmm-shim'], 'apps')

export default [
  shim(
    'a guest is believed whatever it says',
    'qemu/agent.ts',
    'if (result.success) return result.output',
    'return value as AgentReport',
  ),
  shim('a request may trickle in for ever', 'api/app.ts', 'requestTimeout: requestTimeoutMs,', 'requestTimeout: 0,'),
  shim('what is not UTF-8 is replaced', 'api/app.ts', 'fatal: true', 'fatal: false'),
  shim('an answer leaves out why a guest is given up', 'api/fault.ts', "error.code !== 'ABORTED'", 'true'),
  shim('an early request finds no VM', 'api/app.ts', 'vm = await served', 'void served.then((each) => (vm = each))'),
  shim('a body of another content type is refused', 'api/app.ts', "    delete request.headers['content-type']\n", ''),
  shim('a wrong body hides that there is no such resource', 'api/routes.ts', "addHook('onRequest'", "addHook('preHandler'"),
  shim(
    'what is not HTTP is answered before the requests before it',
    'api/refusal.ts',
    'if (pipeline && isUnderWay(pipeline)) {',
    'if (pipeline && pipeline.count < 0) {',
  ),
  shim('the API outlives the VM', 'shim.ts', 'await Promise.all([api?.close(), watcher?.close()])', 'await watcher?.close()'),
  shim('the first error of a dial is final', 'shim.ts', 'retryable: true', 'retryable: false'),
  shim(
    'the page takes any token',
    'page/guard.ts',
    'if (!timingSafeEqual(digest(token), this.#token))',
    'if (digest(token).length !== this.#token.length)',
  ),
  shim(
    'the page answers to any Host',
    'page/guard.ts',
    "if (!this.#hosts.has(headers.host?.toLowerCase() ?? ''))",
    'if (this.#hosts.size === 0)',
  ),
  shim('the page lets any Origin change the VM', 'page/guard.ts', 'if (!isOwn || (site', 'if ((site'),
  shim('the page waits for a slow reader', 'page/event-stream.ts', 'response.writableLength > MAX_WAITING', 'false'),
  shim('the page is served to other machines', 'page/where.ts', "(host.startsWith('127.') && isIPv4(host))", 'isIPv4(host)'),
  shim(
    'the page streams while another answer is under way',
    'page/server.ts',
    'if (reply.raw.socket === null)',
    'if (false as boolean)',
  ),
  shim('the page tells a programmer what to do', 'page/server.ts', '      bodyOf: adviceFor,\n', ''),
]

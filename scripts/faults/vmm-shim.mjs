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
]

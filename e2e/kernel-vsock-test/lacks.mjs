// What a test of vsock_test needs of a kernel that not every kernel here has. It is what the test fails for over the kernel's own
// loopback, too: the suite shows that.

const ERRORS = 'its receiving and sending calls answer ENOMEM where newer kernels have an error of their own'
const SIGPIPE = 'a write after the end of that direction raises no SIGPIPE'
const ZEROCOPY = 'it has no MSG_ZEROCOPY for AF_VSOCK'
const OUTQ = 'it has no SIOCOUTQ for AF_VSOCK'

/** By name of the test: the end whose kernel is asked, the first kernel that has it, and what older ones do. */
const NEEDS = {
  'SOCK_SEQPACKET invalid receive buffer': { end: 'server', since: '6.3', why: ERRORS },
  'SOCK_SEQPACKET big message': { end: 'client', since: '6.3', why: ERRORS },
  'SOCK_STREAM test invalid buffer': { end: 'client', since: '6.3', why: ERRORS },
  'SOCK_SEQPACKET test invalid buffer': { end: 'client', since: '6.3', why: ERRORS },
  'SOCK_SEQPACKET MSG_PEEK': { end: 'server', since: '6.6', why: 'it has no MSG_PEEK for messages' },
  'SOCK_STREAM SHUT_WR': { end: 'client', since: '6.7', why: SIGPIPE },
  'SOCK_STREAM SHUT_RD': { end: 'client', since: '6.7', why: SIGPIPE },
  'SOCK_STREAM MSG_ZEROCOPY': { end: 'client', since: '6.7', why: ZEROCOPY },
  'SOCK_SEQPACKET MSG_ZEROCOPY': { end: 'client', since: '6.7', why: ZEROCOPY },
  'SOCK_STREAM virtio credit update + SO_RCVLOWAT': {
    ...{ end: 'server', since: '6.8', why: 'it tells of no credit when SO_RCVLOWAT is set' },
  },
  'SOCK_STREAM ioctl(SIOCOUTQ) 0 unsent bytes': { end: 'client', since: '6.11', why: OUTQ },
  'SOCK_SEQPACKET ioctl(SIOCOUTQ) 0 unsent bytes': { end: 'client', since: '6.11', why: OUTQ },
}

/** Which of the tests these two kernels cannot pass, and why, by id. */
export function lacking(tests, kernels) {
  const found = tests.map((name, id) => [id, reason(NEEDS[name], kernels)])
  return new Map(found.filter(([, why]) => why !== undefined))
}

function reason(need, kernels) {
  if (need === undefined || !isOlder(kernels[need.end], need.since)) return undefined
  return `the ${need.end} runs ${kernels[need.end]}: before ${need.since} ${need.why}`
}

function isOlder(kernel, other) {
  const [[major, minor], [otherMajor, otherMinor]] = [kernel, other].map((version) => version.split('.').map(Number))
  return major < otherMajor || (major === otherMajor && minor < otherMinor)
}

# One connection of AF_VSOCK, by Python's socket module, that takes the steps it is told. JSON lines on stdout: `listening`, then
# `done` with what came of the steps.
#
#   peer.py connect <cid> <port> <step>...
#   peer.py listen <port> <step>...
#
# Steps: send:<bytes>, recv:<bytes>, recv-end, send-error, shutdown:write|read|both, pause:<ms>, close.
import errno
import socket
import sys
import time

# The bytes of each direction count on, so that a lost or doubled byte is seen.
PERIOD = bytes(range(251))
BLOCK = 65536
PATTERN = PERIOD * (BLOCK // len(PERIOD) + 2)


class Peer:
    def __init__(self, stream, outcome):
        self.stream = stream
        self.outcome = outcome

    def send(self, count):
        end = self.outcome["sent"] + count
        while self.outcome["sent"] < end:
            start = self.outcome["sent"] % len(PERIOD)
            block = PATTERN[start : start + min(BLOCK, end - self.outcome["sent"])]
            self.outcome["sent"] += self.stream.send(block)

    def receive(self, count=None):
        end = None if count is None else self.outcome["received"] + count
        while end is None or self.outcome["received"] < end:
            block = self.stream.recv(BLOCK if end is None else min(BLOCK, end - self.outcome["received"]))
            if not block:
                self.outcome["ended"] = True
                if end is None:
                    return
                raise EOFError("end")
            start = self.outcome["received"] % len(PERIOD)
            if block != PATTERN[start : start + len(block)]:
                self.outcome["wrong"] += 1
            self.outcome["received"] += len(block)

    def send_error(self):
        while "sendError" not in self.outcome:
            try:
                self.send(1)
                time.sleep(0.005)
            except OSError as error:
                self.outcome["sendError"] = code(error)

    def take(self, step):
        name, _, argument = step.partition(":")
        if name == "send":
            self.send(int(argument))
        elif name == "recv":
            self.receive(int(argument))
        elif name == "recv-end":
            self.receive()
        elif name == "send-error":
            self.send_error()
        elif name == "shutdown":
            self.stream.shutdown({"read": socket.SHUT_RD, "write": socket.SHUT_WR, "both": socket.SHUT_RDWR}[argument])
        elif name == "pause":
            time.sleep(int(argument) / 1000)
        elif name == "close":
            self.stream.close()
        else:
            raise ValueError(step)


def opened(words):
    stream = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    if words[0] == "connect":
        stream.connect((int(words[1]), int(words[2])))
        return stream, words[3:]
    stream.bind((socket.VMADDR_CID_ANY, int(words[1])))
    stream.listen()
    tell({"event": "listening"})
    return stream.accept()[0], words[2:]


def code(error):
    return errno.errorcode.get(getattr(error, "errno", None), str(error))


def tell(value):
    print(shown(value), flush=True)


# Debian's smallest Python has no json.
def shown(value):
    if isinstance(value, dict):
        return "{%s}" % ", ".join('"%s": %s' % (name, shown(each)) for name, each in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    return '"%s"' % value if isinstance(value, str) else str(value)


def main(words):
    outcome = {"sent": 0, "received": 0, "wrong": 0, "ended": False}
    step = words[0]
    try:
        stream, steps = opened(words)
        peer = Peer(stream, outcome)
        for step in steps:
            peer.take(step)
    except (OSError, EOFError) as error:
        outcome["error"] = {"step": step, "code": code(error)}
    tell({"event": "done", "outcome": outcome})


main(sys.argv[1:])

"""execnet, measured. A call is a send and a receive on an open channel, the cheapest that it has."""
import os
import time

import anchor
import execnet

PID = "import os; channel.send(os.getpid())"
ECHO = "for item in channel: channel.send(item)"
DRAIN = "channel.send(sum(len(channel.receive()) for _ in range(%d)))"
POUR = "block = bytes(%d)\nfor _ in range(%d): channel.send(block)"


class Tree:
    def __init__(self):
        self.group = execnet.Group()
        self.count = 0

    def add(self, kind, via=None, hop=1):
        python = anchor.child_python()
        spec = {
            "local": "popen//python=" + python,
            "sudo": "popen//python=sudo -n -u root " + python,
            "ssh": "ssh=%s//ssh_config=%s//python=%s" % (anchor.host(hop), anchor.ssh_config(), python),
        }[kind]
        self.count += 1
        name = "g%d" % self.count
        return self.group.makegateway(spec + ("//via=" + via.id if via else "") + "//id=" + name)

    def chain(self, text):
        kind, hops = anchor.variant(text)
        gateway = None
        for hop in range(1, hops + 1):
            gateway = self.add(kind, gateway, hop)
        return gateway

    def close(self):
        self.group.terminate(timeout=5)


def connect(text):
    start = anchor.clock()
    tree = Tree()
    gateway = tree.chain(text)
    connected, mono_connected = anchor.clock(), time.monotonic()
    gateway.remote_exec(PID).receive()
    called, mono_called = anchor.clock(), time.monotonic()
    tree.close()
    end = anchor.clock()
    anchor.emit(connect_s=connected - start, first_call_s=called - connected, shutdown_s=end - called, total_s=end - start,
                mono_connected=mono_connected, mono_called=mono_called)


def connect_warm(kind, n):
    tree = Tree()
    anchor.warm(lambda: tree.add(kind), lambda: tree.add(kind), n)
    tree.close()


def echo_channel(tree, text):
    return tree.chain(text).remote_exec(ECHO)


def latency(text, size, n):
    tree = Tree()
    channel = echo_channel(tree, text)
    data = os.urandom(size)

    def call():
        channel.send(data)
        channel.receive()

    anchor.latency(call, n)
    tree.close()


def pipeline(text, n):
    tree = Tree()
    channel = echo_channel(tree, text)
    channel.send(None)
    channel.receive()
    start = anchor.clock()
    for _ in range(n):
        channel.send(None)
    for _ in range(n):
        channel.receive()
    wall = anchor.clock() - start
    anchor.emit(n=n, wall_s=wall, calls_per_s=n / wall)
    tree.close()


def bulk(text, how, nbytes):
    if how not in ("up", "down"):
        return anchor.emit(skip="not measured")
    tree = Tree()
    gateway = tree.chain(text)
    gateway.remote_exec(PID).receive()
    blocks = nbytes // anchor.CHUNK
    start = anchor.clock()
    if how == "up":
        block = os.urandom(anchor.CHUNK)
        channel = gateway.remote_exec(DRAIN % blocks)
        for _ in range(blocks):
            channel.send(block)
        got = channel.receive()
    else:
        channel = gateway.remote_exec(POUR % (anchor.CHUNK, blocks))
        got = sum(len(channel.receive()) for _ in range(blocks))
    anchor.transfer(got, anchor.clock() - start)
    tree.close()


def fanout(kind, n):
    tree = Tree()
    start = anchor.clock()
    # One by one: it hands out names from one thread only.
    gateways = [tree.add(kind) for _ in range(n)]
    connected = anchor.clock()
    for channel in [gateway.remote_exec(PID) for gateway in gateways]:
        channel.receive()
    end = anchor.clock()
    anchor.hold(tree.close, connect_s=connected - start, first_call_s=end - connected, total_s=end - start)


def grow(kind, *spec):
    tree = Tree()
    start = anchor.clock()

    def below(parent, spec):
        for _ in range(spec[0] if spec else 0):
            below(tree.add(kind, parent), spec[1:])

    below(None, spec)
    anchor.hold(tree.close, total_s=anchor.clock() - start)


if __name__ == "__main__":
    anchor.main(dict(connect=connect, connect_warm=connect_warm, latency=latency, pipeline=pipeline, bulk=bulk, fanout=fanout,
                     idle=lambda kind: fanout(kind, 1), tree=grow))

"""Mitogen, measured. ssh compression is off, since the bytes here are random or zero and the path is loopback."""
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import anchor
import mitogen.core
import mitogen.master
import package
import remote_functions as far

THREADS = 32


class Tree:
    def __init__(self):
        self.broker = mitogen.master.Broker()
        self.router = mitogen.master.Router(self.broker)

    def add(self, kind, via=None, hop=1):
        options = dict(via=via, python_path=anchor.child_python(), connect_timeout=120)
        if kind == "local":
            return self.router.local(**options)
        if kind == "sudo":
            return self.router.sudo(username="root", **options)
        if os.environ.get("BENCH_SSH_PATH"):
            options["ssh_path"] = os.environ["BENCH_SSH_PATH"]
        return self.router.ssh(hostname=anchor.host(hop), ssh_args=["-F", anchor.ssh_config()], check_host_keys="ignore",
                               compression=False, **options)

    def chain(self, text):
        kind, hops = anchor.variant(text)
        context = None
        for hop in range(1, hops + 1):
            context = self.add(kind, context, hop)
        return context

    def close(self):
        self.broker.shutdown()
        self.broker.join()


def connect(text):
    start = anchor.clock()
    tree = Tree()
    context = tree.chain(text)
    connected, mono_connected = anchor.clock(), time.monotonic()
    context.call(os.getpid)
    called, mono_called = anchor.clock(), time.monotonic()
    tree.close()
    end = anchor.clock()
    anchor.emit(connect_s=connected - start, first_call_s=called - connected, shutdown_s=end - called, total_s=end - start,
                mono_connected=mono_connected, mono_called=mono_called)


def connect_warm(kind, n):
    tree = Tree()
    anchor.warm(lambda: tree.add(kind), lambda: tree.add(kind), n)
    tree.close()


def latency(text, size, n):
    tree = Tree()
    context = tree.chain(text)
    data = os.urandom(size)
    anchor.latency((lambda: context.call(far.echo, data)) if size else (lambda: context.call(far.nothing)), n)
    tree.close()


def pipeline(text, n):
    tree = Tree()
    context = tree.chain(text)
    context.call(far.nothing)
    start = anchor.clock()
    pending = [context.call_async(far.nothing) for _ in range(n)]
    for reply in pending:
        reply.get().unpickle()
    wall = anchor.clock() - start
    anchor.emit(n=n, wall_s=wall, calls_per_s=n / wall)
    tree.close()


def bulk(text, how, nbytes):
    if how not in ("up", "down"):
        return anchor.emit(skip="not measured")
    tree = Tree()
    context = tree.chain(text)
    context.call(far.nothing)
    back = mitogen.core.Receiver(tree.router)
    start = anchor.clock()
    if how == "up":
        block = os.urandom(anchor.CHUNK)
        done = context.call_async(far.drain, back.to_sender())
        sender = back.get().unpickle()
        for _ in range(nbytes // anchor.CHUNK):
            sender.send(block)
        sender.close()
        got = done.get().unpickle()
    else:
        done = context.call_async(far.pour, back.to_sender(), nbytes, anchor.CHUNK)
        got = sum(len(message.unpickle()) for message in back)
        done.get().unpickle()
    wall = anchor.clock() - start
    assert got == nbytes, (got, nbytes)
    anchor.transfer(got, wall)
    tree.close()


def program(nbytes):
    """A function of a program of so many bytes: calling it imports all its modules, here now and there at the first call."""
    folder = os.path.join(os.environ["BENCH_STATE"], "package-%d" % os.getpid())
    package.write(folder, nbytes)
    sys.path.insert(0, folder)
    from forwarded_program import start
    return start.nothing


def first(text, nbytes):
    nothing = program(nbytes)
    tree = Tree()
    context = tree.chain(text)
    context.call(os.getpid)
    before = tree.router.responder.good_load_module_size
    start = anchor.clock()
    context.call(nothing)
    first_s = anchor.clock() - start
    context.call(nothing)
    second_s = anchor.clock() - start - first_s
    sent = tree.router.responder.good_load_module_size - before
    anchor.emit(first_s=first_s, second_s=second_s, sent_bytes=sent, MiB_s=sent / first_s / 2**20)
    tree.close()


def economy(kind, n, threads, nbytes):
    nothing = program(nbytes)
    tree = Tree()
    bastion = tree.add(kind)
    with ThreadPoolExecutor(min(n, THREADS)) as pool:
        contexts = list(pool.map(lambda _: tree.add("local", bastion), range(n)))
    for context in contexts:
        context.call(os.getpid)
    mono_connected, start = time.monotonic(), anchor.clock()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda context: context.call(nothing), contexts))
    calls_s, mono_called = anchor.clock() - start, time.monotonic()
    anchor.emit(calls_s=calls_s, mono_connected=mono_connected, mono_called=mono_called)
    tree.close()


def fanout(kind, n):
    tree = Tree()
    start = anchor.clock()
    with ThreadPoolExecutor(min(n, THREADS)) as pool:
        contexts = list(pool.map(lambda _: tree.add(kind), range(n)))
    connected = anchor.clock()
    for reply in [context.call_async(os.getpid) for context in contexts]:
        reply.get().unpickle()
    end = anchor.clock()
    anchor.hold(tree.close, connect_s=connected - start, first_call_s=end - connected, total_s=end - start)


def grow(kind, *spec):
    tree = Tree()
    start = anchor.clock()

    def below(parent, spec):
        for _ in range(spec[0] if spec else 0):
            context = tree.add(kind, parent)
            context.call(os.getpid)
            below(context, spec[1:])

    below(None, spec)
    anchor.hold(tree.close, total_s=anchor.clock() - start)


if __name__ == "__main__":
    anchor.main(dict(connect=connect, connect_warm=connect_warm, latency=latency, pipeline=pipeline, bulk=bulk,
                     fanout=fanout, idle=lambda kind: fanout(kind, 1), tree=grow, first=first, economy=economy,
                     call=lambda text, n: latency(text, 0, n), call_pipeline=pipeline))

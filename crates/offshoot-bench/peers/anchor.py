"""What the Python anchors share: one measurement per process, one JSON object per line, times in seconds."""
import json
import os
import sys
import time

WARM_UP = 50
CHUNK = 128 * 1024
clock = time.perf_counter


def emit(**fields):
    print(json.dumps(fields), flush=True)


def variant(text):
    kind = text.rstrip("0123456789")
    return kind, int(text[len(kind):] or 1)


def child_python():
    return os.environ["BENCH_PY"]


def ssh_config():
    return os.environ["BENCH_SSH_CONFIG"]


def host(hop):
    return "bench" if hop == 1 else "bench%d" % hop


def family():
    """This process and all below it."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as f:
                    parent = int(f.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found


def switches(pids):
    total = 0
    for pid in pids:
        try:
            for task in os.listdir("/proc/%d/task" % pid):
                with open("/proc/%d/task/%s/status" % (pid, task)) as f:
                    total += sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)
        except OSError:
            pass
    return total


def latency(call, n):
    """Times sequential calls after the warm-up."""
    for _ in range(WARM_UP):
        call()
    pids = family()
    before = switches(pids)
    times = []
    for _ in range(n):
        start = clock()
        call()
        times.append(clock() - start)
    switched = switches(pids) - before
    micros = sorted(t * 1e6 for t in times)
    emit(n=n, p50_us=micros[n // 2], p99_us=micros[min(n - 1, int(n * .99))], min_us=micros[0], max_us=micros[-1],
         mean_us=sum(micros) / n, switches_per_call=switched / n)


def warm(first, further, n):
    """Times one context, then `n` more."""
    start = clock()
    first()
    first_s = clock() - start
    times = []
    cpu = time.process_time()
    for _ in range(n):
        start = clock()
        further()
        times.append(clock() - start)
    cpu = time.process_time() - cpu
    times.sort()
    emit(first_s=first_s, next_p50_s=times[n // 2], next_min_s=times[0], next_max_s=times[-1], master_cpu_per_next_s=cpu / n)


def peak_kib(pid):
    try:
        with open("/proc/%d/status" % pid) as f:
            return next((int(line.split()[1]) for line in f if line.startswith("VmHWM")), 0)
    except OSError:
        return 0


def transfer(nbytes, seconds):
    emit(bytes=nbytes, wall_s=seconds, MiB_s=nbytes / seconds / 2**20, master_maxrss_kib=peak_kib(os.getpid()),
         largest_kib=max(map(peak_kib, family())))


def hold(close, **fields):
    """Says ready, waits for the runner, shuts down."""
    emit(ready=True, **fields)
    sys.stdin.readline()
    start = clock()
    close()
    emit(shutdown_s=clock() - start)


def main(verbs):
    """Calls the verb with its arguments, numbers as numbers."""
    verb, *words = sys.argv[1:]
    if verb not in verbs:
        return emit(skip="no such verb")
    verbs[verb](*[int(w) if w.isdigit() else w for w in words])

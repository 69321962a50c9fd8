"""What the scripts that measure share: the machine, fair surroundings, two sides in turns, and their CSV.

A row of a table is one piece of work. In a round our side runs and then the peer, on the same processors with
the same number of threads, and the shortest time of one is divided by that of the other; rounds alternate, so
a slow minute falls on both. A ratio above 1 means that keyhole is faster. Only Python's standard library.
"""

import argparse
import csv
import datetime
import functools
import importlib.machinery
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
RESULTS = os.path.join(ROOT, "bench", "results")

# What a peer is called in tables and curves.
PEERS = {
    "sdpa": "PyTorch", "torch": "PyTorch", "step": "PyTorch", "paper": "the paper's algorithm", "gqa": "ONNX Runtime GQA",
    "mha": "ONNX Runtime MHA", "topk": "torch.topk", "sort": "std::partial_sort", "one": "itself, 1 thread",
    "full": "keyhole's full attention", "limit": "the limit",
}  # fmt: skip


def fail(message):
    sys.exit(f"{os.path.basename(sys.argv[0])}: {message}")


def script(name):
    """One of the programs beside this file, as a module."""
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), os.path.join(HERE, name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


# ---- the machine


def read_text(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def cpu_name():
    found = re.search(r"^model name\s*: (.*)$", read_text("/proc/cpuinfo"), re.M)
    return found.group(1).strip() if found else platform.machine()


def slug(name):
    name = re.sub(r"\((r|tm)\)", "", name.lower())
    return re.sub(r"[^a-z0-9.]+", "-", name).strip("-")


def results_folder(results=RESULTS):
    """Of this machine."""
    return os.path.join(results, slug(cpu_name()))


def memory_gib():
    return int(re.search(r"^MemTotal:\s*(\d+)", read_text("/proc/meminfo"), re.M).group(1)) / 2**20


def machine_line(isa):
    return f"{cpu_name()}, {os.cpu_count()} cores ({isa}), {memory_gib():.0f} GiB, Linux {platform.release()}"


def load():
    return f"{os.getloadavg()[0]:.2f}"


def processors():
    return len(os.sched_getaffinity(0))


# ---- surroundings

# Settings of a caller that may slow a library down: none of them reaches either side. OPENBLAS_CORETYPE and
# OPENBLAS_L2_SIZE are among them.
SETTINGS = ("OMP_ GOMP_ KMP_ MKL_ OPENBLAS_ DNNL_ ONEDNN_ ATEN_ GGML_ LLAMA_ KEYHOLE_ISA").split()
LIMITS = {
    "avx2": {
        "KEYHOLE_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    None: {},
}  # fmt: skip


def environment(threads=None, isa=None):
    env = {k: v for k, v in os.environ.items() if not k.startswith(tuple(SETTINGS))}
    return {**env, **LIMITS[isa], **({"OMP_NUM_THREADS": str(threads)} if threads else {})}


def dropped():
    """Which settings of the caller those are, for the record."""
    found = sorted(k for k in os.environ if k.startswith(tuple(SETTINGS)))
    return f"settings of the caller that neither side was given: {', '.join(found)}" if found else "no setting was dropped"


def pin(threads):
    """The last processors of those that this process may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def start_options(threads, isa):
    return {"env": environment(threads, isa), "preexec_fn": lambda: pin(threads), "text": True}


def run_json(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if done.returncode:
        fail(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    try:
        return json.loads(done.stdout)
    except ValueError:
        fail(f"{' '.join(command)} printed no JSON: {done.stdout[:200]!r}")


def find_torch(given=None):
    """The Python of bench/peers/torch-env, which is made the first time."""
    if given:
        return given
    done = subprocess.run([f"{HERE}/torch-env"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        fail("bench/peers/torch-env failed")
    return os.path.join(done.stdout.strip().rsplit(": ", 1)[1], "bin", "python")


@functools.lru_cache
def build_of(keyhole, isa=None):
    """Commit and instruction set of the program; unknown where there is none."""
    try:
        done = subprocess.run([keyhole, "--version"], capture_output=True, text=True, env=environment(isa=isa))
    except OSError:
        return "unknown", isa or "unknown"
    commit = re.match(r"keyhole \S+ \((\S+)\)", done.stdout)
    found = re.search(r"^instruction set: (.*)$", done.stdout, re.M)
    return commit.group(1) if commit else "unknown", found.group(1) if found else "unknown"


# ---- the two sides


@dataclass
class Timed:
    """One side of one round."""

    seconds: float
    peak_bytes: int = 0  # over inputs and outputs
    process_bytes: int = 0
    peak_share: float = 0  # of what the processor can do at most, counted as the dense function
    machine: dict = None  # as keyhole reports it


class Keyhole:
    """Starts the program anew each time: it forks a process for the row anyway."""

    def __init__(self, args, words, threads):
        self.command, self.threads, self.limit = [args.keyhole, "bench", *words], threads, args.isa

    def time(self, times):
        command = [*self.command, "--json", "-q", "--repeat", str(times)]
        found = run_json(command, **start_options(self.threads, self.limit))
        (r,) = found["results"]
        return Timed(r["seconds_min"], r["peak_bytes"], r.get("process_bytes", 0), r.get("peak_share", 0), found["machine"])

    def close(self):
        pass


class Worker:
    """A peer that waits for a line between its runs: how often to run."""

    def __init__(self, command, threads, isa, **options):
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options, **start_options(threads, isa)}
        self.process = subprocess.Popen(command, **options)
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            fail(f"{' '.join(self.process.args)} ended with {self.process.wait()}")
        return json.loads(line)

    def time(self, times):
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()
        found = self.answer()
        return Timed(min(found["seconds"]), found["peak_bytes"])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def python_worker(args, script, case, threads, **options):
    return Worker([args.python, "-B", f"{HERE}/{script}", json.dumps(case)], threads, args.isa, **options)


# What PyTorch needs: the peers that it stands behind.
TORCH = ("sdpa", "paper", "topk", "torch", "step")


def torch_line(args):
    """Its version, and a line about the kernels that it chose."""
    case = {"work": "sdpa", "about": True, "L": 64, "k": 1, "heads": 1, "head_dim": 64, "threads": 1, "pass": "fwd"}
    worker = python_worker(args, "torch_worker.py", case, 1, stderr=subprocess.DEVNULL)  # the profiler is talkative
    worker.close()
    a = worker.about
    return a["torch"], f"PyTorch {a['torch']}: {a['kernel']}, {a['capability']}; gemm: {a['gemm']}; {a['parallel']}"


# ---- rows


@dataclass
class Row:
    name: str
    peer: str  # of PEERS
    work: str  # attention, select, ff, stack
    passed: str = "fwd"  # or fwd+bwd
    L: int = 0
    attn: str = "full"
    threads: int = 1
    goals: tuple = (None, None)  # on a machine with AVX-512, on one with AVX2
    rounds: int = 3
    reps: int = 3  # timed runs of a side in a round
    heads: int = 12
    key_heads: int = 12
    width: int = 64
    causal: bool = True
    chunk: int = 0
    scores: str = ""
    ff: int = 0
    cost: float = 10  # seconds, about
    usual: bool = True  # without --rows
    limit: int = 0  # bytes over inputs and outputs, for the peer "limit"
    process_limit: int = 0  # bytes of the whole process, for the same

    def share_of_limits(self, timed):
        """How often what was used fits into the limits."""
        pairs = [(self.limit, timed.peak_bytes), (self.process_limit, timed.process_bytes)]
        return min(limit / used for limit, used in pairs if limit)

    def top(self):
        found = re.search(r"k=(\d+)", self.attn)
        return int(found.group(1)) if found else 0

    def goal(self, isa):
        return self.goals[0 if isa.startswith("avx512") else 1]


COLUMNS = (
    "date commit row peer work pass L heads kv_heads head_dim ff attn scores causal chunk threads isa rounds "
    "keyhole_seconds keyhole_median peer_seconds peer_median ratio_min ratio_median ratio_spread goal goal_avx512 goal_avx2 peak_share "
    "core_gigaflops read_gigabytes read_gigabytes_all keyhole_peak_bytes keyhole_process_bytes peer_peak_bytes load "
    "wall_seconds peer_version command"
).split()


def blank(value):
    return "" if value is None else value


def rounds_of(row, ours, peer, args):
    """What each side took in every round: A B A B ..."""
    rounds = args.rounds or (min(row.rounds, 2) if args.quick else row.rounds)
    times = 1 if args.quick else args.reps or row.reps
    return [(ours.time(times), peer.time(times)) for _ in range(rounds)]


def summary(row, results):
    """The columns that the measurement decides."""
    ours, theirs = zip(*results)
    ratios = [b.seconds / a.seconds for a, b in results]
    if row.peer == "limit":
        ratios = [row.share_of_limits(a) for a in ours]
    median, machine = statistics.median(ratios), ours[0].machine
    peak = max(a.machine["gigaflops_per_core"] for a in ours)  # a neighbour can only lower it
    return {
        "row": row.name, "peer": row.peer, "work": row.work, "pass": row.passed, "L": row.L, "attn": row.attn,
        "heads": row.heads, "kv_heads": row.key_heads, "head_dim": row.width, "ff": row.ff or "", "scores": row.scores,
        "causal": int(row.causal), "chunk": row.chunk, "threads": row.threads, "isa": machine["isa"],
        "rounds": len(results), "keyhole_seconds": min(a.seconds for a in ours),
        "keyhole_median": statistics.median(a.seconds for a in ours), "peer_seconds": min(b.seconds for b in theirs),
        "peer_median": statistics.median(b.seconds for b in theirs), "ratio_min": min(ratios), "ratio_median": median,
        "ratio_spread": (max(ratios) - min(ratios)) / median, "goal": blank(row.goal(machine["isa"])),
        "goal_avx512": blank(row.goals[0]), "goal_avx2": blank(row.goals[1]),
        "peak_share": max(a.peak_share * a.machine["gigaflops_per_core"] for a in ours) / peak, "core_gigaflops": peak,
        "read_gigabytes": max(a.machine["read_gigabytes"] for a in ours),
        "read_gigabytes_all": max(a.machine["read_gigabytes_all"] for a in ours),
        "keyhole_peak_bytes": max(a.peak_bytes for a in ours),
        "keyhole_process_bytes": max(a.process_bytes for a in ours),
        "peer_peak_bytes": row.limit or row.process_limit or max(b.peak_bytes for b in theirs),
    }  # fmt: skip


def met(found):
    """yes, no, or nothing where there is no goal."""
    return "" if found["goal"] == "" else "yes" if float(found["ratio_median"]) >= float(found["goal"]) else "NO"


def each(found, seconds, digits=3):
    """The usual unit: s for a step, ns for a score, us for a token or for a query and head."""
    seconds, L, heads = float(seconds), int(found["L"]), int(found["heads"])
    if found["work"] == "train":
        return f"{seconds:.2f} s"
    if found["work"] == "select":
        return f"{seconds / L * 1e9:.{digits}f} ns"
    return f"{seconds / L / heads * 1e6:.2f} us"


HEAD = ("row", "peer", "keyhole", "of peak", "peer", "min", "median", "spread", "goals", "met", "rounds")
WIDTHS = (26, 5, 11, 7, 11, 7, 7, 7, 9, 4, 6)


def line(cells):
    return " ".join(f"{c:<{w}}" if i < 2 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, WIDTHS)))


def goals_text(found):
    """Of both levels: 2.6/2."""
    goals = [found["goal_avx512"], found["goal_avx2"]]
    return "" if goals == ["", ""] else "/".join(f"{float(g):g}" if g != "" else "-" for g in goals)


def cells_of(found):
    share = f"{found['peak_share']:.0%}" if found["peak_share"] else ""
    if found["peer"] == "limit":
        sides = [f"{found[k] / 2**20:.0f} MiB" for k in ("keyhole_peak_bytes", "keyhole_process_bytes")]
    else:
        sides = [each(found, found[k]) for k in ("keyhole_seconds", "peer_seconds")]
    return [
        found["row"], found["peer"], sides[0], share, sides[1], f"{found['ratio_min']:.2f}",
        f"{found['ratio_median']:.2f}", f"{found['ratio_spread']:.0%}", goals_text(found), met(found), str(found["rounds"]),
    ]  # fmt: skip


# ---- the file


def csv_rows(path):
    """The comments and the rows of a CSV."""
    if not os.path.exists(path):
        return [], []
    lines = read_text(path).splitlines()
    comments = [text[2:] for text in lines if text.startswith("# ")]
    return comments, list(csv.DictReader(text for text in lines if not text.startswith("#")))


class Results:
    """bench/results/<machine>/NAME.csv; rows are appended as they are known, the latest of a name counts."""

    def __init__(self, name, args, machine, about):
        self.path = os.path.join(results_folder(args.results), f"{name}.csv")
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.fixed = {"date": datetime.date.today().isoformat(), "commit": build_of(args.keyhole)[0]}
        self.command = f"bench/peers/{name} --rows {{}}" + (f" --isa {args.isa}" if args.isa else "")
        new = not os.path.exists(self.path)
        with open(self.path, "a", encoding="utf-8", newline="") as f:
            if new:
                f.write(f"# machine: {machine}\n{','.join(COLUMNS)}\n")
            f.write(f"# run: {self.fixed['date']}; keyhole {self.fixed['commit']}; load before {load()}; {machine}\n")
            f.write(f"# {about}\n")

    def add(self, found, more):
        rounded = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in found.items()}
        more = {**self.fixed, **more, "command": self.command.format(found["row"])}
        with open(self.path, "a", encoding="utf-8", newline="") as f:
            csv.DictWriter(f, COLUMNS, lineterminator="\n").writerow({**rounded, **more})


def recorded(name, args):
    """The latest row of every name and instruction set on this machine."""
    rows = csv_rows(os.path.join(results_folder(args.results), f"{name}.csv"))[1]
    return {(r["row"], r["isa"]): r for r in rows}


# ---- the command


def options(name, doc, rows):
    """The arguments of a script and the rows that they choose."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", metavar="A,B", help="names, or beginnings of names (--list prints them)")
    p.add_argument("--list", action="store_true", help="prints the rows and about how long they take")
    p.add_argument("-r", "--reps", type=int, help="timed runs of a side within a round (1 to 3)")
    p.add_argument("--rounds", type=int, help="rounds of each row (2 to 5)")
    p.add_argument("--quick", action="store_true", help="1 run, 2 rounds, and no row that takes 20 seconds")
    p.add_argument("--isa", choices=("avx2",), help="limits both sides to AVX2, on a machine that has more")
    p.add_argument("--csv", action="store_true", help=f"also append to bench/results/<machine>/{name}.csv")
    p.add_argument("--resume", action="store_true", help="--csv, without the rows that this build has measured")
    p.add_argument("--check", action="store_true", help="exit 1 if a median is below its goal")
    p.add_argument("--python", metavar="PROGRAM", help="a Python with torch (default: bench/peers/torch-env's)")
    p.add_argument("--keyhole", default=os.path.join(ROOT, "build", "keyhole"), metavar="PROGRAM")
    p.add_argument("--results", default=RESULTS, metavar="FOLDER", help="default: bench/results")
    args = p.parse_args()
    args.csv |= args.resume
    args.cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    args.peers = os.environ.get("KEYHOLE_PEERS") or os.path.join(args.cache, "keyhole", "peers")
    if not args.list and not os.path.exists(args.keyhole):
        fail(f"{args.keyhole} does not exist: make builds it (--keyhole names another)")
    args.keyhole = os.path.abspath(args.keyhole)
    for w in args.rows.split(",") if args.rows else []:
        if not any(r.name.startswith(w) for r in rows):
            p.error(f"--rows: no row begins with '{w}'")
    return args, chosen(rows, args)


def chosen(rows, args):
    """ONNX Runtime has no switch for an instruction set; memory and odd scores need no second look at another."""
    if args.isa:
        rows = [r for r in rows if r.peer not in ("gqa", "mha", "limit")]
    if args.rows:
        rows = [r for r in rows if any(r.name.startswith(w) for w in args.rows.split(","))]
    else:
        rows = [r for r in rows if r.usual and (not args.isa or r.goals[1] and r.scores in ("", "gaussian"))]
    return [r for r in rows if r.cost < 20 and r.scores in ("", "gaussian")] if args.quick else rows


def seconds_text(seconds):
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def measured_before(name, rows, args):
    """How long the rows took, or are thought to take, and the names of those that this build has measured."""
    commit, isa = build_of(args.keyhole, args.isa)
    old = {row: r for (row, level), r in recorded(name, args).items() if level == isa}
    times = (1.6 if args.isa else 1) * (0.5 if args.quick else 1)
    costs = {r.name: float(old.get(r.name, {}).get("wall_seconds") or r.cost * times) for r in rows}
    return costs, {row for row, r in old.items() if args.resume and r["commit"] == commit}


def main(name, doc, rows, sides):
    """A script: its name, its description, its rows; `sides(row, args)` opens keyhole and the peer."""
    args, rows = options(name, doc, rows)
    sys.exit(run(name, rows, sides, args))


def run(name, rows, sides, args):
    costs, done = measured_before(name, rows, args)
    if args.list:
        for row in rows:
            print(f"{row.name:<30} {PEERS[row.peer]:<28} {costs[row.name]:4.0f} s")
    rows = [r for r in rows if r.name not in done]
    total = seconds_text(sum(costs[r.name] for r in rows))
    if args.list or not rows:
        print(f"{len(rows)} rows: about {total}" + (f"; {len(done)} were measured with this build" if done else ""))
        return 0
    version, about = "", "no PyTorch in these rows"
    if any(r.peer in TORCH + ("gqa", "mha") for r in rows):
        args.python = find_torch(args.python)
    if any(r.peer in TORCH for r in rows):
        version, about = torch_line(args)
    machine = measured_machine(args)
    results = Results(name, args, machine, about) if args.csv else None
    print(machine, about, dropped(), f"{len(rows)} rows, about {total}; load at start: {load()}", "", line(HEAD), sep="\n", flush=True)
    below = False
    for row in rows:
        if row.threads > processors():
            print(f"{row.name}: needs {row.threads} processors", flush=True)
            continue
        before, start = load(), time.monotonic()
        ours, peer = sides(row, args)
        found = summary(row, rounds_of(row, ours, peer, args))
        peer.close()
        below |= met(found) == "NO"
        print(line(cells_of(found)), flush=True)
        if results:
            other = getattr(peer, "about", {}).get("onnxruntime", "")
            more = {"load": before, "wall_seconds": f"{time.monotonic() - start:.1f}"}
            results.add(found, {**more, "peer_version": version if row.peer in TORCH else other})
    if results:
        print(f"written: {os.path.relpath(results.path)}")
    return 1 if args.check and below else 0


def measured_machine(args):
    """Its figures come from keyhole itself: one tiny row."""
    words = ["bench", "select", "-L", "2048", "-k", "1", "--scores", "equal", "--json", "-q"]
    m = run_json([args.keyhole, *words], env=environment(isa=args.isa), text=True)["machine"]
    return (
        f"{machine_line(m['isa'])}; {m['gigaflops_per_core']:.0f} GFLOP/s a core, reads {m['read_gigabytes']:.0f} GB/s "
        f"on one core, {m['read_gigabytes_all']:.0f} on all"
    )

"""keyhole train and keyhole tune as programs: the same bits for any number of threads and for a run that was resumed,
kills, Ctrl-C, a full disk, and one sentence for everything that cannot be.

Each function called `train_*` has a folder of its own; two run side by side. KEYHOLE_KILLS says how often runs are
killed at a random moment (test_train_kills.sh asks for the long version).
"""

import concurrent.futures
import contextlib
import filecmp
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

KEYHOLE = os.environ["KEYHOLE"]
KILLS = int(os.environ.get("KEYHOLE_KILLS", "5"))
TINY = os.path.abspath("tests/golden/tiny/llama.gguf")
TEXT = os.path.abspath("examples/persuasion.txt")
ARCH = ["--arch", "llama:layers=2,width=32,heads=2,ff=64"]
TASK = ["--task", "mqar:L=32,pairs=2,vocab=64"]
RUN = [*ARCH, *TASK, "-b", "4", "-t", "1", "--log-every", "1"]
PATIENCE = 300
failures = []


class Case:
    def __init__(self, name):
        self.name = name
        self.home = tempfile.mkdtemp(prefix="keyhole-train-")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("LLAMA_ARG_")}
        self.out = self.err = ""

    def close(self):
        shutil.rmtree(self.home, ignore_errors=True)

    def check(self, what, good):
        if not good:
            failures.append(f"{self.name}: {what}")
            print("FAILED:", failures[-1], flush=True)

    def path(self, *names):
        return os.path.join(self.home, *names)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return name

    def start(self, *words):
        return subprocess.Popen([KEYHOLE, *words], cwd=self.home, env=self.env, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    def run(self, code, *words, limits=None):
        done = subprocess.run([KEYHOLE, *words], cwd=self.home, env=self.env, capture_output=True, text=True, timeout=PATIENCE,
                              stdin=subprocess.DEVNULL, restore_signals=False, preexec_fn=limits)  # fmt: skip
        self.out, self.err = done.stdout, done.stderr
        self.check(f"exit {done.returncode}, expected {code}: {words}: {done.stderr}", done.returncode == code)
        return done

    def train(self, folder, *words, code=0, limits=None):
        return self.run(code, "train", *RUN, "-o", folder, *words, limits=limits)

    def has(self, part):
        self.check(f"{part!r} is expected in {self.out + self.err!r}", part in self.out + self.err)

    def refused(self, code, sentences, *words, verb="train", base=None):
        """One line on standard error, which has the sentences; no folder is left behind."""
        base = [*ARCH, *TASK] if base is None else base
        self.run(code, verb, *base, "-n", "2", "-q", "-o", "refused", *words)
        for sentence in [sentences] if isinstance(sentences, str) else sentences:
            self.has(sentence)
        self.check(f"one sentence: {self.err!r}", self.err.startswith("keyhole: ") and self.err.count("\n") <= 1 + (code == 2))
        self.check(f"nothing on standard output: {self.out!r}", not self.out)
        left = os.path.exists(self.path("refused")) and sorted(os.listdir(self.path("refused")))
        self.check(f"{words}: {left} is left", not left)

    def lines(self, folder):
        with open(self.path(folder, "metrics.jsonl")) as file:
            return [json.loads(line) for line in file]

    def losses(self, folder):
        return {x["step"]: (x["loss"], x["norm"], x["accuracy"], x["lr"]) for x in self.lines(folder) if "loss" in x}

    def checkpoints(self, folder):
        with contextlib.suppress(FileNotFoundError):
            return sorted(int(f[5:]) for f in os.listdir(self.path(folder)) if f.startswith("step-"))
        return []

    def same_files(self, what, a, b, names):
        for name in names:
            self.check(f"{what}: {name} has the same bytes", filecmp.cmp(self.path(a, name), self.path(b, name), shallow=False))

    def same_run(self, what, a, b, step):
        """Checkpoint and model to the byte, and the losses of all steps."""
        checkpoint = f"step-{step:08d}/"
        self.same_files(what, a, b, [checkpoint + f for f in ("model.safetensors", "optimizer.safetensors", "state.json")])
        self.same_files(what, a, b, ["model.gguf"])
        self.check(f"{what}: the same losses: {self.losses(a)} and {self.losses(b)}", self.losses(a) == self.losses(b))
        self.check(f"{what}: a line for every step", sorted(self.losses(a)) == list(range(1, step + 1)))

    def wait_for(self, what, process, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            if process.poll() is not None or time.monotonic() > end:
                self.check(f"{what}: {process.communicate() if process.poll() is not None else 'too late'}", False)
                return
            time.sleep(0.005)

    def steps(self, folder):
        """The last whole line's step, 0 before the first."""
        with contextlib.suppress(FileNotFoundError, IndexError), open(self.path(folder, "metrics.jsonl")) as file:
            return json.loads(file.read().split("\n")[-2])["step"]
        return 0


# ---- the same bits ----


def train_threads(t):
    attn = ["--attn", "topk:k=4..16/20", "--attn-dropout", "0.1"]
    for threads in ("1", "2"):
        t.train(threads, "-n", "25", "-t", threads, *attn)
    t.same_run("1 and 2 threads", "1", "2", 25)
    t.train("other", "-n", "25", "-s", "1", *attn)
    t.check("another seed, other losses", t.losses("1")[25] != t.losses("other")[25])
    first, last = t.losses("1")[1][0], t.losses("1")[25][0]
    t.check(f"a loss that begins at ln 64: {first}, {last}", abs(first - 4.16) < 0.2 and last != first)


def resumed(t, words, steps=25, middle=10):
    t.run(0, "train", *words, "-o", "whole", "-n", str(steps), "--save-every", "5", "--keep", "100")
    shutil.copytree(t.path("whole"), t.path("part"))
    for step in t.checkpoints("part"):
        if step > middle:
            shutil.rmtree(t.path("part", f"step-{step:08d}"))
    os.remove(t.path("part", "model.gguf"))
    with open(t.path("part", "metrics.jsonl"), "a") as file:
        file.write('{"step":' if middle % 2 else "garbage\n")
    t.run(0, "train", *words, "-o", "part", "-n", str(steps), "--save-every", "5", "--keep", "100", "--resume")
    t.has(f"goes on from part/step-{middle:08d}")
    t.same_run("resumed", "whole", "part", steps)
    for step in t.checkpoints("whole"):
        t.same_files("resumed", "whole", "part", [f"step-{step:08d}/state.json"])


def train_resumed_before_an_evaluation(t):
    """A run that was stopped in an evaluation, of a step between or of the last one, makes up for it."""
    words = ["--valid", "held.txt", "--eval-every", "5", "--save-every", "5", "--keep", "10", "-q", "--data", "text.txt", "-L", "32"]
    words = ["train", *ARCH, "--tokenizer", TINY, "-t", "1", *words]
    t.write("text.txt", open(TEXT).read()[:4000])
    t.write("held.txt", open(TEXT).read()[4000:5000])
    t.run(0, *words, "-o", "whole", "-n", "10")
    evaluations = [x for x in t.lines("whole") if "eval_loss" in x]
    t.check(f"evaluations: {evaluations}", [x["step"] for x in evaluations] == [0, 5, 10])
    for stopped in (5, 10):
        shutil.copytree(t.path("whole"), t.path(str(stopped)))
        kept = [x for x in t.lines("whole") if x["step"] <= stopped and not ("eval_loss" in x and x["step"] == stopped)]
        t.write(f"{stopped}/metrics.jsonl", "".join(json.dumps(x) + "\n" for x in kept))
        if stopped == 5:
            shutil.rmtree(t.path("5", "step-00000010"))
        t.run(0, *words, "-o", str(stopped), "-n", "10", "--resume")
        again = [x for x in t.lines(str(stopped)) if "eval_loss" in x]
        t.check(f"stopped at {stopped}: {again} as {evaluations}", again == evaluations)
        t.run(0, *words, "-o", str(stopped), "-n", "10", "--resume")
        t.check("and once only", [x for x in t.lines(str(stopped)) if "eval_loss" in x] == evaluations)


def train_resumed_task(t):
    resumed(t, [*RUN, "--attn", "topk:k=4..16/20", "--attn-dropout", "0.1", "--accumulate", "2"])


def train_resumed_bf16(t):
    resumed(t, [*RUN, "--optimizer", "adamw:moments=bf16,weights=bf16"])
    size = os.path.getsize
    wide, narrow = (t.path(f, "step-00000025", "optimizer.safetensors") for f in ("wide", "whole"))
    t.train("wide", "-n", "25", "--save-every", "25", "-q")
    t.check("bf16 halves the moments", size(narrow) < 0.6 * size(wide))
    t.train("whole", "-n", "26", "--resume", "-q", code=1)
    t.has("belongs to a run with other options")


def train_resumed_text(t):
    """Several epochs of a short text, whose order changes; another optimiser, schedule and a frozen tensor."""
    t.write("text.txt", open(TEXT).read()[:700])
    words = ["--arch", "llama:layers=1,width=32,heads=2,ff=64", "--tokenizer", TINY, "--data", "text.txt", "-L", "48", "-b", "2",
             "--optimizer", "sgd:momentum=0.9,clip=1", "--schedule", "linear:warmup=4", "--train", "blk.*,output*",
             "--group", "*ffn*:rate=0.5", "-t", "1", "--log-every", "1"]  # fmt: skip
    resumed(t, words, middle=15)
    t.check("several epochs", t.lines("whole")[-1]["epoch"] > 1)


def train_accumulate(t):
    t.train("one", "-n", "12", "-b", "8")
    t.train("two", "-n", "12", "-b", "4", "--accumulate", "2")
    one, two = t.losses("one"), t.losses("two")
    worst = max(abs(one[s][0] - two[s][0]) for s in one)
    t.check(f"two batches are one of twice the size: {worst}", worst < 1e-5 and one[12][0] != one[1][0])
    t.check("rows of all batches", t.lines("one")[3]["rows"] == t.lines("two")[3]["rows"] == 16)


def train_recompute(t):
    """Top-k attends again over the keys that it kept, in their order: the last bits differ."""
    for attn in ("full", "topk:k=4"):
        for what in ("block", "none"):
            t.train(attn + what, "-n", "12", "--attn", attn, "--recompute", what, "--attn-dropout", "0.1")
    t.same_files("recompute", "fullblock", "fullnone", ["step-00000012/model.safetensors", "step-00000012/optimizer.safetensors"])
    t.check("the same losses", t.losses("fullblock") == t.losses("fullnone"))
    a, b = t.losses("topk:k=4block"), t.losses("topk:k=4none")
    worst = max(abs(a[s][0] - b[s][0]) for s in range(1, 13))
    t.check(f"recompute with top-k: {worst}", worst < 1e-6 and a != t.losses("fullblock"))


# ---- evaluations, and where a run ends ----


def train_validation(t):
    with open(TEXT) as book:
        text = book.read()[2000:12000]
    t.write("data.jsonl", "".join(json.dumps({"text": text[i : i + 250]}) + "\n" for i in range(0, len(text), 250)))
    t.write("held.txt", text[:600])
    base = ["train", *ARCH, "--tokenizer", TINY, "--data", "data.jsonl", "-L", "64", "-n", "9", "-t", "1", "--log-every", "3"]
    t.run(0, *base, "-o", "share", "--valid-share", "0.3", "--eval-every", "4", "--json")
    lines = t.lines("share")
    t.check(f"the order of lines: {lines}", [("eval" if "eval_loss" in x else "step", x["step"]) for x in lines]
            == [("eval", 0), ("step", 3), ("eval", 4), ("step", 6), ("eval", 8), ("step", 9), ("eval", 9)])  # fmt: skip
    evals = [x for x in lines if "eval_loss" in x]
    t.check("evaluations see the same rows", len({x["eval_rows"] for x in evals}) == 1 and evals[0]["eval_rows"] > 100)
    t.check("and another loss each time", len({x["eval_loss"] for x in evals}) == len(evals))
    said = json.loads(t.out)
    t.check(f"--json has the last one: {said}", said["steps"] == said["evaluation"]["step"] == 9
            and abs(said["evaluation"]["eval_loss"] - evals[-1]["eval_loss"]) < 1e-7)  # fmt: skip
    t.run(0, *base, "-o", "batches", "--valid-share", "0.3", "--eval-every", "100", "--eval-batches", "2")
    t.check("a part of them", t.lines("batches")[0]["eval_rows"] < evals[0]["eval_rows"])
    t.check("at the end too", t.lines("batches")[-1]["step"] == 9 and "eval_loss" in t.lines("batches")[-1])
    t.run(0, *base, "-o", "file", "--valid", "held.txt", "--eval-every", "5")
    t.check("a file that is held out", 0 < t.lines("file")[0]["eval_rows"] < 600 and t.lines("file")[0]["eval_loss"] > 3)
    t.run(0, *base, "-o", "unsaid", "--valid-share", "0.3", "-q")
    t.check("first and last, unless told", [x["step"] for x in t.lines("unsaid") if "eval_loss" in x] == [0, 9])
    t.run(0, *base, "-o", "none", "-q")
    t.check("nothing held out", [x["step"] for x in t.lines("none")] == [3, 6, 9])
    t.run(1, *base, "-o", "nothing", "--eval-every", "5")
    t.has("nothing is held out")
    t.run(2, *base, "-o", "much", "--valid-share", "1")
    t.has("--valid-share: 1 is not between 0 and 0.9")


def train_stops_at(t):
    words = ["-n", "400", "--stop-at", "0.02", "-b", "16", "--log-every", "3", "--eval-every", "4", "--json"]
    t.train("run", *words)
    lines = [x for x in t.lines("run") if "eval_loss" in x]
    last = lines[-1]["step"]
    reached = [x["eval_accuracy"] >= 0.02 for x in lines]
    t.check(f"ends where it is reached first: {lines[-2:]}", reached == [False] * (len(lines) - 1) + [True])
    t.check("before the last step", last < 400 and json.loads(t.out)["steps"] == last)
    t.check("with a checkpoint and the model", t.checkpoints("run") == [last] and os.path.exists(t.path("run", "model.gguf")))
    t.check("the step itself is told", t.lines("run")[-2]["step"] == last and "loss" in t.lines("run")[-2])
    t.train("run", *words, "--resume")
    found = json.loads(t.out)
    t.check("resumed, it has nothing left to do", found["steps"] == last and found["evaluation"] == lines[-1])
    t.train("run", *words, "--resume", "--stop-at", "0.9", "-n", str(last + 4))
    t.check("but may be asked for more", json.loads(t.out)["steps"] == last + 4)


def train_keeps(t):
    t.train("run", "-n", "9", "--save-every", "2", "--keep", "3")
    t.check(f"the last three: {t.checkpoints('run')}", t.checkpoints("run") == [6, 8, 9])


# ---- stopping ----


def train_killed(t):
    """At a random moment, until it is done; then the next run, until there were enough kills."""
    words = ["-n", "150", "--save-every", "3"]
    t.train("whole", *words)
    dice, kills, runs = random.Random(KILLS), 0, 0
    while kills < KILLS:
        folder, runs, last = f"run{runs}", runs + 1, 0
        while not os.path.exists(t.path(folder, "model.gguf")):
            process = t.start("train", *RUN, "-o", folder, "--resume", *words)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(dice.uniform(0.02, 0.6) if kills < KILLS else PATIENCE)
            kills += process.poll() is None
            process.kill()
            out, err = process.communicate()
            t.check(f"killed or done: {process.returncode} {err}", process.returncode in (0, -signal.SIGKILL))
            first = int(err.split("goes on from ")[1].split("/step-")[1][:8]) if "goes on from " in err else 0
            t.check(f"nothing that was whole is lost: {first} after {last}", first >= last or not err)
            newest = max([s for s in t.checkpoints(folder) if os.path.exists(t.path(folder, f"step-{s:08d}/state.json"))], default=0)
            t.check(f"checkpoints do not go: {newest} after {last}", newest >= last)
            last = newest
        t.same_run(f"killed {kills} times", "whole", folder, 150)
    t.check(f"{kills} kills", kills >= KILLS)


def train_interrupted(t):
    words = ["-n", "100000", "--save-every", "100000", "--schedule", "constant"]
    process = t.start("train", *RUN, "-o", "run", *words)
    t.wait_for("steps", process, lambda: t.steps("run") >= 5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    step = t.steps("run")
    t.check(f"exit {process.returncode}", process.returncode == 130)
    t.check(f"a checkpoint of the step that ran: {t.checkpoints('run')}, {step}", t.checkpoints("run") == [step] and 5 <= step < 100000)
    t.check(f"says where: {err}", f"stopped at step {step}; --resume goes on from it" in err and err.count("keyhole: ") == 1)
    t.check("no model yet", not os.path.exists(t.path("run", "model.gguf")))
    total = str(step + 10)
    t.train("run", *words, "-n", total, "--resume")
    t.train("whole", *words, "-n", total)
    t.same_run("interrupted", "whole", "run", step + 10)
    # At the last step: what is missing is the model.
    os.remove(t.path("run", "model.gguf"))
    t.train("run", *words, "-n", total, "--resume")
    t.same_run("once more", "whole", "run", step + 10)


def train_interrupted_twice(t):
    large = ["--arch", "llama:layers=8,width=256,heads=4", "--task", "mqar:L=1024,pairs=4,vocab=4096", "-b", "16"]
    process = t.start("train", *large, "-o", "run", "-n", "2", "-t", "1", "--eval-every", "0")
    t.wait_for("the run begins", process, lambda: os.path.exists(t.path("run", "metrics.jsonl")))
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    early = process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    t.check(f"exit {process.returncode}", process.returncode == 130)
    t.check("the first one waits for the step, the second does not", early and t.steps("run") == 0 and not t.checkpoints("run"))


def train_interrupted_evaluation(t):
    """Which may take long: it ends without a result."""
    words = ["train", *ARCH, "--tokenizer", TINY, "--data", TEXT, "--valid", TEXT, "-L", "512", "-b", "4", "-t", "1", "--log-every", "1"]
    process = t.start(*words, "-o", "run", "-n", "5")
    t.wait_for("the run begins", process, lambda: os.path.exists(t.path("run", "metrics.jsonl")))
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    t.check(f"exit {process.returncode}", process.returncode == 130)
    t.check("no line, no step", not t.lines("run") and not t.checkpoints("run"))
    t.run(0, *words, "-o", "run", "-n", "2", "--resume", "--eval-batches", "2", "-q")
    t.check("the same folder begins anew", [x["step"] for x in t.lines("run")] == [0, 1, 2, 2])


def train_full_disk(t):
    t.train("whole", "-n", "20", "--save-every", "10")
    for i, limit in enumerate((200, 3000, 60_000, 90_000)):
        folder = f"run{i}"
        t.train(folder, "-n", "10", "--schedule", "cosine:steps=20", "--save-every", "10")
        t.train(folder, "-n", "20", "--schedule", "cosine:steps=20", "--save-every", "10", "--resume", "--log-every", "10", "-q", code=1,
                limits=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))  # fmt: skip
        t.has("File too large")
        t.check(f"one sentence: {t.err}", t.err.startswith("keyhole: ") and t.err.count("\n") == 1)
        t.check(f"{limit}: the checkpoint stays: {t.checkpoints(folder)}", t.checkpoints(folder) == [10])
        t.train(folder, "-n", "20", "--schedule", "cosine:steps=20", "--save-every", "10", "--resume")
        t.same_files("after a full disk", "whole", folder, ["step-00000020/model.safetensors", "step-00000020/optimizer.safetensors", "model.gguf"])
        t.check(f"{limit}: the same losses", t.losses(folder) == t.losses("whole"))


def train_one_folder(t):
    process = t.start("train", *RUN, "-o", "run", "-n", "1000000")
    t.wait_for("the first one begins", process, lambda: t.steps("run") >= 2)
    with open(t.path("run", "config.json")) as file:
        config = file.read()
    t.train("run", "-n", "7", code=1)
    t.has(f"another run writes its checkpoints here (process {process.pid})")
    t.train("run", "-n", "7", "--resume", code=1)
    t.has("another run writes")
    with open(t.path("run", "config.json")) as file:
        t.check("the first one's configuration stays", file.read() == config)
    t.check("and it goes on", process.poll() is None)
    process.kill()
    process.communicate()
    t.check("and its lines", [x["step"] for x in t.lines("run")[:3]] == [1, 2, 3])
    t.train("run", "-n", "7")
    t.check("a lock goes with its process", t.checkpoints("run") == [7])


def train_resume_refused(t):
    t.train("run", "-n", "4", "--save-every", "2", "--resume")  # an empty folder: it starts
    before = sorted(os.listdir(t.path("run")))
    t.train("run", "-n", "4", code=1)
    t.has("run/step-00000004 is there: a run goes on from it only when asked to (--resume)")
    for other in (["-s", "1"], ["--lr", "0.5"], ["--attn", "topk:k=4"], ["-b", "5"], ["--accumulate", "2"], ["--schedule", "constant"],
                  ["--optimizer", "sgd"], ["--train", "blk.*"], ["--group", "*:rate=0.5"], ["--task", "mqar:L=32,pairs=3,vocab=64"],
                  ["--attn-dropout", "0.5"], ["--grad", "layer-causal"], ["--recompute", "none"], ["--arch", "llama:layers=2,width=32,heads=4,ff=64"],
                  ["--arch", "llama:layers=3,width=32,heads=2,ff=64"]):  # fmt: skip
        t.train("run", "-n", "6", "--resume", *other, code=1)
        t.has("run/step-00000004")
        t.has("belongs to a run with other options")
    t.check("nothing was written", sorted(os.listdir(t.path("run"))) == before and t.steps("run") == 4)
    # The newest is damaged: it is named, and the one before it is gone on from.
    with open(t.path("run", "step-00000004", "model.safetensors"), "r+b") as file:
        file.seek(5000)
        file.write(b"\xff")
    t.train("run", "-n", "4", "--resume", "-t", "2")
    t.has("note: run/step-00000004")
    t.has("goes on from run/step-00000002")
    t.train("whole", "-n", "4", "--save-every", "2")
    t.same_run("a damaged one", "whole", "run", 4)


# ---- what cannot be ----


def train_refuses_data(t):
    text = [*ARCH, "--tokenizer", TINY]
    t.write("empty.txt", "")
    t.write("one.jsonl", '{"text": ""}\n{"text": ""}\n')
    t.write("bad.jsonl", '{"text": "good"}\n{"text": 7}\n')
    t.write("words.jsonl", '{"words": "x"}\n')
    t.write("good.txt", open(TEXT).read()[:2000])
    os.mkdir(t.path("folder"))
    t.refused(2, "empty.txt", "--data", "empty.txt", base=text)
    t.refused(2, "one.jsonl", "--data", "one.jsonl", base=text)
    t.refused(1, ["bad.jsonl", "2", "text"], "--data", "bad.jsonl", base=text)
    t.refused(1, "words.jsonl", "--data", "words.jsonl", base=text)
    t.refused(1, "nowhere.txt", "--data", "nowhere.txt", base=text)
    t.refused(1, "folder", "--data", "folder", base=text)
    t.refused(2, "empty.txt", "--data", "good.txt", "--valid", "empty.txt", "--eval-every", "1", base=text)
    t.refused(2, "a tokenizer", "--data", "good.txt", base=ARCH)
    t.refused(1, "nowhere", "--data", "good.txt", "--tokenizer", "nowhere", base=ARCH)
    t.refused(2, "one of both", "--data", "good.txt", "--tokenizer", TINY)
    t.refused(2, ["--data", "--task"], base=ARCH)
    t.refused(2, ["--data", "--task"], TINY, base=[], verb="tune")
    # One long document cannot be held out in part.
    t.refused(2, "held", "--data", "good.txt", "--valid-share", "0.1", "--eval-every", "1", "-L", "100000", base=text)


def train_refuses_models(t):
    t.refused(2, "--arch", base=TASK)
    t.refused(1, ['"lama"', "llama"], "--arch", "lama:layers=2", base=TASK)
    t.refused(2, ["'layer' is not known", "layers"], "--arch", "llama:layer=2", base=TASK)
    t.refused(2, ["layers=two", "a whole number"], "--arch", "llama:layers=two", base=TASK)
    t.refused(2, "name=value", "--arch", "llama:layers", base=TASK)
    t.refused(2, ["width", "30"], "--arch", "llama:layers=1,width=30,heads=4", base=TASK)
    t.refused(2, ["has 64 ids", "model 8"], "--arch", "llama:layers=1,width=32,heads=2,vocabulary=8", base=TASK)
    t.refused(2, ["sequences of 32", "learned positions for 16"], "--arch", "gpt2:layers=1,width=32,heads=2,context=16", base=TASK)
    t.refused(2, ["sequences of 64", "learned positions for 32"], "--arch", "gpt2:layers=1,width=32,heads=2,context=32", "-L", "64", base=TASK)
    t.refused(1, "nowhere.gguf", "-m", "nowhere.gguf", base=TASK, verb="tune")
    t.refused(2, "no model was named", base=TASK, verb="tune")
    t.refused(2, "'mqra'", "--task", "mqra:L=32", base=ARCH)
    t.refused(2, "pears", "--task", "mqar:L=32,pears=2", base=ARCH)


def train_refuses_options(t):
    t.run(2, "train", *ARCH, *TASK, "-n", "2")
    t.has("-o FOLDER names where the run is kept")
    t.refused(2, ["blk.9.*", "matches"], "--train", "blk.9.*")
    t.refused(2, ["nothing*", "matches"], "--group", "nothing*:rate=2")
    t.refused(2, "'rte'", "--group", "*:rte=2")
    t.refused(2, "nothing", "--group", "*:rate=0")
    t.refused(2, "'tpok'", "--attn", "tpok:k=4")
    t.refused(2, "k", "--attn", "topk:k=4..x/10")
    t.refused(2, "'adam'", "--optimizer", "adam")
    t.refused(2, "beta3", "--optimizer", "adamw:beta3=1")
    t.refused(2, "'cosin'", "--schedule", "cosin")
    t.refused(2, "--lr: 1e30 is not between", "--lr", "1e30")
    t.refused(2, "-n", "-n", "0")
    t.refused(2, ["--type", "'BF61'"], "--type", "BF61", "-o", "unwritten")
    t.refused(1, "nowhere: No such file", "--save", "nowhere/model.gguf", "-o", "unwritten")
    t.check("before anything is written", sorted(os.listdir(t.path("unwritten"))) == ["lock"])
    t.refused(1, "/nowhere/run", "-o", "/nowhere/run")
    t.write("file", "")
    t.refused(1, "file", "-o", "file")


def train_refuses_configurations(t):
    def refused(text, *parts, code=2):
        t.write("c.json", text)
        t.refused(code, ["c.json", *parts], "--config", "c.json")

    refused('{"stpes": 3}', '"stpes" is no option of keyhole train')
    refused('{"steps": "many"}', "steps", "'many'")
    refused('{"steps": [1, 2]}', '"steps" is a text, a number')
    refused('{"steps": true}', '"steps"')
    refused('{"resume": 1}', '"resume" is true or false')
    refused('{"recompute": "blok"}', "recompute", "block")
    refused('{"data": [1.5, {}]}', '"data"')
    refused('{"config": "c.json"}', '"config"')
    refused('{"lr": -1}', "lr")
    refused('{"steps": 3,}', "line 1", code=1)
    refused("[]", "object", code=1)
    refused("", "c.json", code=1)
    t.refused(1, "nowhere.json", "--config", "nowhere.json")


def train_configuration(t):
    """What was run can be run again from the file beside it, and the command line wins."""
    t.write("a.txt", open(TEXT).read()[:1500])
    t.write("b.txt", open(TEXT).read()[3000:4500])
    config = {"arch": ARCH[1], "tokenizer": TINY, "data": ["a.txt", "b.txt"], "length": 32, "steps": 9, "lr": 0.004, "log-every": 1,
              "threads": 1, "group": ["*norm*:rate=0.5", "blk.0.*:decay=0.1"], "order": "given", "resume": False}  # fmt: skip
    t.write("c.json", json.dumps(config))
    t.run(0, "train", "--config", "c.json", "-o", "one", "-n", "6")
    written = json.load(open(t.path("one", "config.json")))
    t.check(f"all that was said: {written}", all(written[k] == v for k, v in config.items() if k not in ("steps", "resume")))
    t.check("the command line wins", written["steps"] == 6 and t.steps("one") == 6)
    t.run(0, "train", "--config", "one/config.json", "-o", "two")
    t.same_run("from its configuration", "one", "two", 6)
    t.run(0, "train", "--arch", ARCH[1], "--tokenizer", TINY, "--data", "a.txt", "--data", "b.txt", "-L", "32", "-n", "6", "--lr", "0.004",
          "--log-every", "1", "-t", "1", "--group", "*norm*:rate=0.5", "--group", "blk.0.*:decay=0.1", "--order", "given", "-o", "three")  # fmt: skip
    t.same_run("as flags", "one", "three", 6)


def train_not_finite(t):
    """The step, the tensor and the last good checkpoint are named; nothing moved."""
    t.train("run", "-n", "20", "--lr", "1000", "--save-every", "1", "-q", code=1)
    lines, newest = t.lines("run"), t.checkpoints("run")[-1]
    t.check("the step before is the last line and the last checkpoint", t.steps("run") == newest)
    t.has(f"step {newest + 1}: the gradient of '")
    t.has("is not finite")
    t.has(f"the last good checkpoint is run/step-{newest:08d}")
    t.check("no model", not os.path.exists(t.path("run", "model.gguf")) and all(x["loss"] is not None for x in lines))
    t.check(f"one sentence: {t.err}", t.err.count("\n") == 1)
    said = t.err
    t.train("run", "-n", "20", "--lr", "1000", "--save-every", "1", "-q", "--resume", code=1)
    t.check("again the same", t.err == said and t.checkpoints("run")[-1] == newest)
    t.train("none", "-n", "20", "--lr", "1000", "-q", code=1)
    t.has("no checkpoint was written before")


# ---- a new user's path ----


def train_from_text(t):
    """Text, a tokenizer, a model, an answer; then the same model tuned on conversations."""
    with open(TEXT) as book:
        t.write("book.txt", book.read()[:60000])
    t.run(0, "tokenizer", "train", "--vocab", "400", "-o", "tokens", "book.txt", "-q")
    t.run(0, "train", *ARCH, "--tokenizer", "tokens", "--data", "book.txt", "-L", "64", "-b", "4", "-n", "30", "--lr", "5e-3", "-t", "2",
          "-o", "run", "--json", "-q")  # fmt: skip
    made = json.loads(t.out)
    t.check(f"--json: {made}", made["steps"] == 30 and made["model"] == "run/model.gguf" and made["attn"] == "full" and made["parameters"] > 20000)
    losses = [x["mean_loss"] for x in t.lines("run") if "loss" in x]
    t.check(f"it learns: {losses}", losses[-1] < losses[0] - 0.2)
    t.check("lines every 10 steps, with all their names", [x["step"] for x in t.lines("run")] == [10, 20, 30] and set(t.lines("run")[0]) == {
        "step", "epoch", "loss", "accuracy", "lr", "norm", "rows", "mean_loss", "tokens_per_second", "seconds", "peak_bytes"})  # fmt: skip
    t.run(0, "run", "-m", "run/model.gguf", "--raw", "-p", "Sir Walter Elliot", "-n", "8", "--json", "-q")
    t.check("it runs", json.loads(t.out)["generated_tokens"] == 8)
    t.run(0, "ppl", "-m", "run/model.gguf", "-f", "book.txt", "-c", "64", "--json", "-q", "--chunks", "4")
    t.write("chat.jsonl", "".join(json.dumps({"messages": [{"role": "user", "content": f"Say {w}"}, {"role": "assistant", "content": w}]}) + "\n"
                                  for w in ("yes", "no", "perhaps")))  # fmt: skip
    t.write("pairs.jsonl", '{"prompt": "one two", "completion": " three"}\n' * 4)
    t.run(0, "tune", "-m", "run/model.gguf", "--data", "pairs.jsonl", "-L", "32", "-n", "2", "-o", "tuned", "--save", "folder/", "-q")
    t.check("a folder", os.path.exists(t.path("folder", "model.safetensors")) and not os.path.exists(t.path("tuned", "model.gguf")))
    t.run(0, "run", "-m", "folder", "--raw", "-p", "one two", "-n", "2", "-q")
    t.run(0, "tune", "run/model.gguf", "--data", "book.txt", "-L", "32", "-n", "2", "-o", "typed", "--type", "F32", "-q")
    t.check("F32 is twice BF16", os.path.getsize(t.path("typed", "model.gguf")) > 1.5 * os.path.getsize(t.path("run", "model.gguf")))
    t.run(0, "train", *ARCH, "--tokenizer", "run/model.gguf", "--data", "book.txt", "-L", "32", "-n", "1", "-o", "again", "-q")


def main():
    cases = [(name, f) for name, f in globals().items() if name.startswith("train_") and (len(sys.argv) < 2 or name in sys.argv[1:])]

    def run(case):
        t = Case(case[0])
        try:
            case[1](t)
        except Exception as error:  # a case that breaks is a failure of that case
            t.check(f"{type(error).__name__}: {error}", False)
        finally:
            t.close()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(run, cases))
    print(f"{len(cases)} cases, {len(failures)} failures")
    return 1 if failures or not cases else 0


if __name__ == "__main__":
    sys.exit(main())

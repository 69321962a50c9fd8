"""The PyTorch side of bench/peers/attention and ff: one piece of work, timed whenever a line arrives.

    python torch_worker.py '{"work": "sdpa", "pass": "fwd", "L": 2048, "threads": 1, ...}'

Runs it once, prints one line of JSON about itself, then, for each line on its standard input, runs the
work as often as that line says and prints {"seconds": [...], "peak_bytes": N}: memory over the inputs.
"""

import json
import os
import re
import subprocess
import sys
import time

import torch

from paper_attention import topk_attention

WARMS_ITSELF = 10  # seconds: such a run counts although it is the first, as keyhole bench does it; but a training step never


def status(field):
    with open("/proc/self/status", encoding="ascii") as f:
        found = re.search(rf"^{field}:\s*(\d+) kB", f.read(), re.M)
    return int(found.group(1)) * 1024 if found else 0


def forget_peak():
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as f:
            f.write("5")
    except OSError:
        pass  # the peak then includes the start


def tensors(case, grad):
    torch.manual_seed(0)
    shape = (case.get("batch", 1), case["heads"], case["L"], case["head_dim"])
    keys = (shape[0], case.get("kv_heads", case["heads"]), *shape[2:])
    q, k, v = (torch.randn(s) for s in (shape, keys, keys))
    for x in (q, k, v) if grad else ():
        x.requires_grad_(True)
    return q, k, v, torch.randn(shape) if grad else None


def attention(case):
    """A function that computes the case once."""
    grad = case["pass"] == "fwd+bwd"
    q, k, v, dout = tensors(case, grad)
    causal = case.get("causal", True)

    def forward():
        if case["work"] == "paper":
            return topk_attention(q, k, v, case["k"], case.get("chunk", 1024), causal)
        grouped = q.shape[1] != k.shape[1]
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)

    def inference():
        with torch.inference_mode():
            forward()

    def training():
        for x in (q, k, v):
            x.grad = None
        forward().backward(dout)

    return training if grad else inference


def scores(case):
    """Sixteen rows, as `keyhole bench select --scores` makes them."""
    torch.manual_seed(0)
    x, kind = torch.randn(16, case["L"]), case.get("scores", "gaussian")
    if kind == "heavy":
        x = torch.exp(2 * x)
    elif kind == "ascending":
        x = x.sort(dim=-1).values
    elif kind == "equal":
        x = torch.full_like(x, 0.5)
    elif kind == "ties":
        x = torch.floor(4 * x.clamp(-2, 1.99)) / 4
    return x


def selection(case):
    rows = scores(case)
    turns = max(1, (1 << 20) // rows.numel())

    def run():
        with torch.inference_mode():
            for _ in range(turns):
                torch.topk(rows, case["k"], dim=-1, sorted=False)

    return run, turns * rows.shape[0]


def feed_forward(case):
    """A dense layer without biases: x W1^T -> relu -> W2."""
    torch.manual_seed(0)
    D, F, grad = case["head_dim"], case["ff"], case["pass"] != "fwd"
    x = torch.randn(case["L"], D, requires_grad=grad)
    w1 = (torch.randn(F, D) / D**0.5).requires_grad_(grad)
    w2 = (torch.randn(F, D) / F**0.5).requires_grad_(grad)
    dy = torch.randn(case["L"], D)

    def run():
        for t in (x, w1, w2):
            t.grad = None
        with torch.set_grad_enabled(grad):
            y = torch.relu(x @ w1.T) @ w2
        if grad:
            y.backward(dy)

    return run


class Block(torch.nn.Module):
    """GPT-2's: norms in front, biases, the tanh form of GELU."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, hidden), torch.nn.Linear(hidden, width)

    def forward(self, x):
        B, L, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        z = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(z.transpose(1, 2).reshape(B, L, D))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(torch.nn.Module):
    """The body of GPT-2 small with a small, tied vocabulary."""

    def __init__(self, case):
        super().__init__()
        width, heads = case["heads"] * case["head_dim"], case["heads"]
        self.tokens = torch.nn.Embedding(case["vocabulary"], width)
        self.positions = torch.nn.Embedding(case["L"], width)
        self.blocks = torch.nn.ModuleList(Block(width, heads, case["ff"]) for _ in range(case["layers"]))
        self.norm = torch.nn.LayerNorm(width)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.tokens.weight.T


def training_step(case):
    """Forward, backward and AdamW (its fused form) on one sequence of random tokens."""
    torch.manual_seed(0)
    model = Gpt(case)
    for p in model.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(case["vocabulary"], (1, case["L"] + 1))

    def run():
        optimizer.zero_grad(set_to_none=True)
        logits = model(ids[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[0, 1:]).backward()
        optimizer.step()

    return run


def kernels():
    """What PyTorch says about itself, and which attention it takes for a small causal example."""
    q = torch.randn(1, 2, 256, 64)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    names = {e.key for e in profile.key_averages() if "scaled_dot_product" in e.key}
    info = torch.__config__.parallel_info().split("\n")
    wanted = ("ATen parallel backend", "omp_get_max_threads", "mkl_get_max_threads", "MKL-DNN")
    lines = [re.sub(r"\s+", " ", x.split(" (Git")[0]).strip() for x in info if any(w in x for w in wanted)]
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "kernel": max(names, key=len, default="?"),
        "parallel": "; ".join(lines),
        "gemm": gemm(),
    }


def gemm():
    """The instruction set that MKL announces, where MKL is what multiplies."""
    program = "import torch; a = torch.randn(64, 64); a @ a"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env={**os.environ, "MKL_VERBOSE": "1"})  # fmt: skip
    found = re.search(r"^MKL_VERBOSE (.*?)(?: Product build.*?)? for .*? architecture (.*?) enabled", done.stdout, re.M)
    return f"{found.group(1)}, {found.group(2)}" if found else "not MKL"


def work_of(case):
    """A function that does the work, and how many rows it does at once."""
    if case["work"] == "topk":
        return selection(case)
    works = {"torch": feed_forward, "step": training_step}
    return works.get(case["work"], attention)(case), 1


def timed(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main():
    case = json.loads(sys.argv[1])
    torch.set_num_threads(case["threads"])
    about = kernels() if case.get("about") else {"torch": torch.__version__}
    run, share = work_of(case)
    forget_peak()
    before = status("VmRSS")
    first = timed(run)
    waiting = [first] if first >= WARMS_ITSELF and case["work"] != "step" else []
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        seconds = waiting + [timed(run) for _ in range(int(line) - len(waiting))]
        waiting = []
        peak = max(0, status("VmHWM") - before)
        print(json.dumps({"seconds": [s / share for s in seconds], "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()

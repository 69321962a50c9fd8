"""The PyTorch side of bench/peers/attention: one piece of work, timed whenever a line arrives.

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


def selection(case):
    torch.manual_seed(0)
    rows = torch.randn(16, case["L"])
    turns = max(1, (1 << 20) // rows.numel())

    def run():
        with torch.inference_mode():
            for _ in range(turns):
                torch.topk(rows, case["k"], dim=-1, sorted=False)

    return run, turns * rows.shape[0]


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


def main():
    case = json.loads(sys.argv[1])
    torch.set_num_threads(case["threads"])
    about = kernels() if case.get("about") else {"torch": torch.__version__}
    run, share = selection(case) if case["work"] == "topk" else (attention(case), 1)
    forget_peak()
    before = status("VmRSS")
    run()
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            seconds.append((time.perf_counter() - start) / share)
        peak = max(0, status("VmHWM") - before)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()

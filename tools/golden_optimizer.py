#!/usr/bin/env python3
"""Steps of PyTorch's AdamW and SGD, for tests/train/test_optimizer.c.

    tools/golden_optimizer.py        writes tests/golden/optimizer.json

Three small tensors walk 25 steps along made-up gradients that span seven orders of magnitude, with groups of
their own learning rates and decays, a learning rate that moves, clipping by clip_grad_norm_ and a scale as of
accumulated gradients. Masters and gradients are f32, as they are in keyhole.
"""

import json
import os

import numpy as np
import torch

OUT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "golden", "optimizer.json")
TENSORS = [("a.weight", 7, 5), ("a.bias", 1, 5), ("b.weight", 3, 6)]
STEPS = 25

# text of keyhole's setting; PyTorch's arguments; [(rate, decay)] of the tensors; learning rate; scale
CASES = [
    ("adamw", {}, [(1, 0.01)] * 3, 1e-2, 1.0),
    ("adamw:beta2=0.98,eps=1e-9,decay=0.1", {"betas": (0.9, 0.98), "eps": 1e-9}, [(1, 0.1), (1, 0), (0.5, 0.1)], 3e-3, 0.25),
    ("adamw:decay=0,clip=1", {}, [(1, 0)] * 3, 5e-3, 1.0),
    ("adamw:beta1=0,beta2=0.9,decay=0", {"betas": (0.0, 0.9)}, [(1, 0), (0, 0), (2, 0)], 1e-3, 1.0),
    ("sgd", {}, [(1, 0)] * 3, 0.05, 1.0),
    ("sgd:momentum=0.9,decay=0.02,clip=0.5", {"momentum": 0.9}, [(1, 0.02), (1, 0), (0.1, 0.02)], 0.1, 0.5),
]


def numbers(array):
    """The shortest texts that lead back to the same floats."""
    return [float(str(x)) for x in np.asarray(array, dtype=np.float32).ravel()]


def rate(step, base):
    return base * (1 - 0.02 * (step - 1))


def run(text, arguments, settings, base, scale, start, gradients):
    tensors = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in start]
    groups = [{"params": [p], "weight_decay": decay} for p, (factor, decay) in zip(tensors, settings) if factor]
    kept = [p for p, (factor, _) in zip(tensors, settings) if factor]
    factors = [factor for factor, _ in settings if factor]
    make = torch.optim.AdamW if text.startswith("adamw") else torch.optim.SGD
    optimizer = make(groups, lr=base, foreach=False, **arguments)
    clip = float(text.split("clip=")[1]) if "clip=" in text else float("inf")
    norms, halfway = [], None
    for step in range(1, STEPS + 1):
        for p, g in zip(tensors, gradients[step - 1]):
            p.grad = torch.from_numpy(g * np.float32(scale))
        norms.append(float(torch.nn.utils.clip_grad_norm_(kept, clip)))
        for group, factor in zip(optimizer.param_groups, factors):
            group["lr"] = rate(step, base) * factor
        optimizer.step()
        if step == 3:
            halfway = numbers(torch.cat([p.detach().ravel() for p in tensors]))
    return {
        "text": text, "rates": [factor for factor, _ in settings], "decays": [decay for _, decay in settings],
        "base": base, "scale": scale, "norms": norms, "after_3": halfway,
        "after": numbers(torch.cat([p.detach().ravel() for p in tensors])),
    }


def main():
    rng = np.random.default_rng(20)
    start = [rng.normal(0, 0.5, (rows, cols)).astype(np.float32) for _, rows, cols in TENSORS]
    gradients = [
        [(rng.normal(0, 1, w.shape) * 10.0 ** rng.uniform(-5, 1.5, w.shape)).astype(np.float32) for w in start]
        for _ in range(STEPS)
    ]
    answer = {
        "tensors": [{"name": name, "rows": rows, "cols": cols} for name, rows, cols in TENSORS],
        "start": numbers(np.concatenate([w.ravel() for w in start])),
        "gradients": [numbers(np.concatenate([g.ravel() for g in step])) for step in gradients],
        "cases": [run(*case, start, gradients) for case in CASES],
    }
    with open(OUT, "w", encoding="utf-8") as f:
        f.write(json.dumps(answer, separators=(",", ":")).replace("],", "],\n") + "\n")


if __name__ == "__main__":
    main()

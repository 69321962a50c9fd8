#!/usr/bin/env python3
"""Buckets of relative positions as transformers' T5 computes them, for tests/attn/test_attn_bias.c.

    tools/golden_relative_bucket.py        writes tests/golden/relative_bucket_{causal,free}.inc

Needs PyTorch and transformers, which building and testing keyhole do not.
"""

import os

import torch
from transformers.models.t5.modeling_t5 import T5Attention

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "golden")


def main():
    distances = torch.arange(-200, 201)
    for name, both in (("causal", False), ("free", True)):
        found = T5Attention._relative_position_bucket(distances, both, num_buckets=32, max_distance=128)
        values = [str(int(b)) for b in found]
        with open(os.path.join(FOLDER, f"relative_bucket_{name}.inc"), "w", encoding="utf-8") as f:
            for i in range(0, len(values), 24):
                f.write(", ".join(values[i : i + 24]) + ",\n")


if __name__ == "__main__":
    main()

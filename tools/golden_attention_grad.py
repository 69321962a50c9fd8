"""Make tests/golden/attention/grad.bin: attention and its gradients by PyTorch's autograd, in double.

Full attention is scaled_dot_product_attention; top-k is the dense emulation of Gupta et al. 2021 (torch.topk, everything
else masked). The data is such that no row's choice hangs on the last bits. File format: tests/golden/README.md.
"""

import pathlib
import struct

import numpy as np
import torch

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "attention"
CAUSAL, FREE = 0, 1
# setting, B, H, G, E, T, S, mask
CASES = [
    ("topk:k=6", 1, 4, 2, 16, 40, 40, CAUSAL),
    ("topk:k=5", 2, 2, 2, 8, 12, 50, FREE),
    ("topk:k=70", 1, 2, 1, 16, 20, 60, CAUSAL),
    ("full", 1, 4, 2, 16, 40, 40, CAUSAL),
    ("full", 1, 2, 2, 20, 30, 75, FREE),
    ("window:recent=9,sinks=2", 1, 2, 1, 16, 33, 40, CAUSAL),
]
MARGIN = 1e-4  # between the last score that is kept and the first that is not


def visible(setting, T, S, mask):
    """True where a row may see a key."""
    i, j = torch.arange(S - T, S)[:, None], torch.arange(S)[None, :]
    seen = torch.ones(T, S, dtype=torch.bool) if mask == FREE else j <= i
    if setting.startswith("window"):
        seen &= (j > i - 9) | (j < 2)
    return seen


def kept(setting, scores, seen):
    """True where a key is kept; scores [B][H][T][S]."""
    keep = seen.expand_as(scores)
    if not setting.startswith("topk"):
        return keep
    k = min(int(setting.split("=")[1]), scores.shape[-1])
    masked = scores.detach().masked_fill(~keep, -torch.inf)
    best = masked.topk(min(k + 1, scores.shape[-1])).values
    if k < best.shape[-1]:
        gap = best[..., k - 1] - best[..., k]
        assert gap[torch.isfinite(gap)].min() > MARGIN
    return keep & (masked >= best[..., k - 1 : k])


def answer(setting, q, k, v, mask):
    """The output, by autograd's own operations."""
    H, G = q.shape[1], k.shape[1]
    k, v = (x.repeat_interleave(H // G, dim=1) for x in (k, v))
    scores = q @ k.transpose(-1, -2)
    keep = kept(setting, scores, visible(setting, q.shape[2], k.shape[2], mask))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=keep)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    with open(OUT / "grad.bin", "wb") as file:
        file.write(b"KHAGRAD1" + struct.pack("<I", len(CASES)))
        for seed, (setting, B, H, G, E, T, S, mask) in enumerate(CASES, 1):
            rng = np.random.default_rng(seed)
            shapes = [(B, H, T, E), (B, G, S, E), (B, G, S, E), (B, H, T, E)]
            arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
            q, k, v = (torch.from_numpy(x).double().requires_grad_() for x in arrays[:3])
            out = answer(setting, q, k, v, mask)
            out.backward(torch.from_numpy(arrays[3]).double())
            arrays += [x.detach().numpy().astype(np.float32) for x in (out, q.grad, k.grad, v.grad)]
            file.write(struct.pack("<64s7I", setting.encode(), B, H, G, E, T, S, mask))
            for x in arrays:
                file.write(x.tobytes())


if __name__ == "__main__":
    main()

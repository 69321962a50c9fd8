"""Top-k attention as its paper computes it (Gupta et al., 2021), for PyTorch.

Written from the paper's description: queries go through in chunks; a chunk forms all of its scores,
masks them with a finite number, keeps the k largest of each row by torch.topk, and multiplies a dense
matrix, zero but for the kept weights, with the values. Backward saves scores and indices of the kept
keys and recomputes the weights; its three products are dense again. No dropout here.
"""

import torch

LEAST = torch.finfo(torch.float32).min


def weights_of(kept, scale):
    return torch.softmax(kept * scale, dim=-1)


def spread(values, indices, keys):
    """A dense [.., rows, keys] that holds the values at their indices."""
    dense = values.new_zeros(*values.shape[:-1], keys)
    return dense.scatter_(-1, indices, values)


class Chunk(torch.autograd.Function):
    """q [B][H][C][E], k and v [B][H][S][E], mask [C][S] (true: forbidden) or None."""

    @staticmethod
    def forward(ctx, q, k, v, mask, top, scale):
        scores = q @ k.transpose(-1, -2)
        if mask is not None:
            scores.masked_fill_(mask, LEAST)
        kept, indices = scores.topk(min(top, scores.shape[-1]), dim=-1, sorted=False)
        del scores
        ctx.save_for_backward(q, k, v, kept, indices)
        ctx.scale = scale
        return spread(weights_of(kept, scale), indices, k.shape[-2]) @ v

    @staticmethod
    def backward(ctx, g):
        q, k, v, kept, indices = ctx.saved_tensors
        p = weights_of(kept, ctx.scale)
        dp = (g @ v.transpose(-1, -2)).gather(-1, indices)
        ds = ctx.scale * p * (dp - (dp * p).sum(-1, keepdim=True))
        dv = spread(p, indices, k.shape[-2]).transpose(-1, -2) @ g
        dense = spread(ds, indices, k.shape[-2])
        return dense @ k, dense.transpose(-1, -2) @ q, dv, None, None, None


def topk_attention(q, k, v, top, chunk=1024, causal=True):
    """All of the queries, in max(1, L // chunk) nearly equal pieces."""
    rows, keys, scale = q.shape[-2], k.shape[-2], q.shape[-1] ** -0.5
    pieces, first = [], 0
    for part in torch.tensor_split(q, max(1, rows // chunk), dim=-2):
        n = part.shape[-2]
        mask = None
        if causal:
            mask = torch.ones(n, keys, dtype=torch.bool).triu_(1 + first + keys - rows)
        pieces.append(Chunk.apply(part, k, v, mask, top, scale))
        first += n
    return torch.cat(pieces, dim=-2)

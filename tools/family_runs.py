"""What golden_families.py asks of a model, by task: what is run, what is checked, what is kept."""

import numpy as np
import torch

from tiny_families import ROWS, SEEN, Golden, Watch, build, check, focus, gap

SAMPLED = 24


def draw(family, words, rng, count):
    """Random ids without the marks; a stretch repeats, so that there is something to attend to."""
    ordinary = np.setdiff1d(np.arange(words.size), list(words.marks.values()))
    ids = rng.choice(ordinary, count)
    ids[20:26] = ids[4:10]
    return ids


def sample(family, rng):
    return np.sort(rng.choice(family.config["vocab_size"], SAMPLED, replace=False))


def stack_of(model):
    base = getattr(model, model.base_model_prefix, model)
    return getattr(base, "encoder", base) if not hasattr(base, "layers") else base


def experts(family, model, ids):
    """Every expert is used, and no choice is a near tie."""
    margins, used = [], []

    def look(_module, _inputs, output):
        scores, _, chosen = output if isinstance(output, tuple) else (output, None, None)
        top = scores.float().softmax(-1).sort(-1, descending=True).values
        k = family.config["num_experts_per_tok"]
        margins.append((top[:, k - 1] - top[:, k]).min().item())
        used.append(set(scores.topk(k, -1).indices.flatten().tolist()))

    routers = [m for n, m in model.named_modules() if n.endswith("mlp.gate")]
    hooks = [m.register_forward_hook(look) for m in routers]
    with torch.no_grad():
        model(torch.tensor([ids.tolist()]))
    for hook in hooks:
        hook.remove()
    if not routers:
        return ""
    n = family.config.get("num_experts", family.config.get("num_local_experts"))
    assert all(len(u) == n for u in used), (family.name, used)
    assert min(margins) > 2e-4, f"{family.name}: the router's margin is {min(margins)}"
    return f", router margin {min(margins):.0e}"


def causal_golden(family, model, ids, sampled, context=0):
    rows = [r for r in ROWS if r < len(ids)]
    watch = Watch(stack_of(model))
    with torch.no_grad():
        out = model(torch.tensor([ids.tolist()]), output_attentions=True)
    watch.done()
    golden = Golden()
    golden.put("ids", ids)
    if context:
        golden.put("context", [context])
    golden.stream("", watch, rows)
    golden.logits(out.logits[0], sampled)
    return golden, out, watch


def causal(family, model, state, words, rng):
    ids = draw(family, words, rng, family.T)
    sampled = sample(family, rng)
    golden, out, watch = causal_golden(family, model, ids, sampled)
    want = out.logits[0]
    batch = torch.tensor([ids.tolist()])

    def answer(other, **more):
        with torch.no_grad():
            return other(batch, **more).logits[0]

    assert torch.equal(answer(build(family, state)), want), f"{family.name}: the folder holds another model"
    apart = torch.arange(family.T).reshape(1, -1).clone()
    apart[:, family.T // 2:] += 1
    limit = family.config.get("n_positions", 128)
    moved = gap(answer(build(family, state), position_ids=apart.clamp_max(limit - 1)), want)
    line = check(family, state, answer, want, positions=moved) + experts(family, model, ids)
    line += f", focus {focus(out.attentions):.2f}, spread {want.std(1).mean():.2f}"
    line += f", norms {' '.join('%.1f' % n for n in watch.states.norm(dim=-1).mean(1))}"
    assert want.std(1).mean() > 0.4 and focus(out.attentions) < 0.9, line
    goldens = {f"{family.name}.bin": golden.bytes()}
    if family.short:
        goldens[f"{family.name}-short.bin"] = causal_golden(
            family, model, ids[:family.short], sampled, context=family.short)[0].bytes()
    return goldens, line


RUNS = {"causal": causal}

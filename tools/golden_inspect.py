"""Make tests/golden/inspect: what TransformerLens says of the tiny models of tests/golden/families.

Logit lens, direct logit attribution, ablations and activation patching, each by TransformerLens' own functions where it
has one, in float32, on the 40 ids of the family's golden. Weights are as the folder has them: no norm is folded, nothing
is centred, no bias is moved. Before anything is written, this is checked: the logits are those of the family's golden,
the lens ends in them, the attribution adds up to them, and TransformerLens' folded and centred form of the same model
attributes the same. No token of a top list is a near tie. Formats: tests/golden/README.md.

    golden_inspect.py [--check] [NAME ...]      --check: writes nothing, compares with what is there
"""

import argparse
import json
import os
import pathlib
import struct
import sys
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
warnings.filterwarnings("ignore")

import numpy as np
import torch
import transformers
from importlib.metadata import version
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import direct_logit_attribution

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
NAMES = ["gpt2", "llama", "qwen2", "gemma2", "gptneox"]
WHOLE = ["gpt2", "llama"]          # the lens of every position; of the others:
SOME = [0, 1, 9, 23, 31, 32, 39]
DIFFERENT = {30: 7, 38: 11}        # where the corrupted prompt differs, and by what
TOP, SAMPLED, LAST = 5, 8, -1
NEAR = 2e-5  # how well two ways to the same number must agree, relative to the largest
TIE = 1e-5   # the least distance of logits that decide an order
CONVENTIONS = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False, "fold_value_biases": False}


# ---- the model ----

def load(name):
    path = GOLDEN / "families" / name
    hf = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    return TransformerBridge.boot_transformers(str(path), hf_model=hf.eval(), tokenizer=tokenizer, device="cpu",
                                               dtype=torch.float32)


def arrays(name):
    """name -> array of a family's golden."""
    data, out, at = (GOLDEN / "families" / f"{name}.bin").read_bytes(), {}, 12
    for _ in range(struct.unpack_from("<8sI", data)[1]):
        key, kind, n, *dims = struct.unpack_from("<24sII4I", data, at)
        count = int(np.prod(dims[:n]))
        value = np.frombuffer(data, "<i4" if kind else "<f4", count, at + 48)
        out[key.rstrip(b"\0").decode()] = value.reshape(dims[:n])
        at += 48 + 4 * count
    return out


def same(what, got, want, limit=NEAR):
    gap = ((got - want).abs().max() / want.abs().max().clamp_min(1)).item()
    assert gap < limit, f"{what}: off by {gap:.2g}"
    return gap


def gain(model):
    weight = model.ln_final.weight.detach()
    return weight + 1 if getattr(model.cfg, "rmsnorm_uses_offset", False) else weight


# ---- the parts of the golden ----

def lens(cache, logits, mid, ids, positions):
    """label -> for every position: the best ids, their probabilities, log-probabilities of `ids`."""
    result = cache.logit_lens(incl_mid=mid, positions=None, return_type="log_probs")
    values = result.values[:, 0]
    same("the last row of the lens", values[-1], logits.log_softmax(-1))
    best = values[:, positions].sort(-1, descending=True)
    ties = (best.values[..., :TOP] - best.values[..., 1:TOP + 1]).min().item()
    assert ties > TIE, f"two tokens are {ties:.2g} apart"
    return {label: [[i[:TOP].tolist(), v[:TOP].exp().tolist(), x[ids].tolist()] for i, v, x in zip(*rows)]
            for label, *rows in zip(result.labels, best.indices, best.values, values[:, positions])}


def attribution(name, model, cache, ids, a, b):
    """part -> its share of logit(a) - logit(b) at the last position, the scale of the final norm as it was."""
    e = model.W_U[:, a] - model.W_U[:, b]
    rest = model.b_U[a] - model.b_U[b]  # what no part of the stream gives
    if getattr(model.ln_final, "bias", None) is not None:
        rest = rest + model.ln_final.bias @ e
    logits = model.unembed(model.ln_final(cache["resid_post", model.cfg.n_layers - 1]))[0, LAST]
    total = logits[a] - logits[b]  # in front of a soft-cap

    def shares(stack, labels):
        return dict(zip(labels, (cache.apply_ln_to_stack(stack, pos_slice=LAST) @ (gain(model) * e))[:, 0]))

    layers = shares(*cache.decompose_resid(pos_slice=LAST, return_labels=True))
    if hasattr(model.blocks[0], "ln1_post"):  # a norm behind each layer's output: its heads and neurons have no share here
        parts = dict(layers)
    else:
        parts = shares(*cache.get_full_resid_decomposition(expand_neurons=True, pos_slice=LAST, return_labels=True))
    check_folded(name, ids, a, b, layers, parts)
    parts["bias"] = parts.get("bias", 0) + rest
    parts["embed"] = parts["embed"] + parts.pop("pos_embed", 0)
    same("the sum of the parts", sum(parts.values()), total)
    return {"total": total.item(), **{label: value.item() for label, value in parts.items()}}


def check_folded(name, ids, a, b, layers, parts):
    """With norms folded and weights centred, layers and heads have the same shares."""
    other = load(name)
    other.enable_compatibility_mode(disable_warnings=True, fold_value_biases=False)
    for unit, want in (("component", layers), ("head", parts)):
        found = direct_logit_attribution(other, ids, a, b, unit=unit)
        for label, value in zip(found.labels, found.attribution[:, 0]):
            if label in want:
                same(f"{label}, folded", value, want[label], 5 * NEAR)
        assert unit == "head" or set(found.labels) == set(want), (found.labels, list(want))


def direction(name, model, token):
    """A column of the output head with the final norm folded in, of length 1: without its mean where the norm takes that off."""
    other = load(name)
    other.enable_compatibility_mode(disable_warnings=True, fold_value_biases=False, center_writing_weights=False,
                                    center_unembed=False)
    d, plain = other.W_U[:, token], gain(model) * model.W_U[:, token]
    same("a folded direction", d, plain - plain.mean() if model.cfg.normalization_type.startswith("LN") else plain)
    return d / d.norm()


def ablations(name, model, cache, ids, sampled):
    """Edits in keyhole's words, what TransformerLens' hooks make of them: log-probabilities at the last position."""
    h, d = model.cfg.n_heads - 1, direction(name, model, 17)

    def head(index, change):
        def hook(x, hook):
            x[:, :, index] = change(x[:, :, index])
            return x
        return hook

    def rows(where, change):
        def hook(x, hook):
            x[:, where] = change(x[:, where])
            return x
        return hook

    everywhere, post = slice(None), "blocks.0.mlp.hook_post"
    z1, stream = "blocks.1.attn.hook_z", "blocks.0.hook_resid_post"

    def last_neuron(x, hook):
        x[:, LAST, 5] = 2.5
        return x

    mean = cache[z1][:, :, 0].mean(1, keepdim=True)
    cases = [
        (["L1H1:zero"], [(z1, head(1, lambda x: 0 * x))]),
        ([f"L0H{h}:scale=-1.5"], [("blocks.0.attn.hook_z", head(h, lambda x: -1.5 * x))]),
        (["L1H0:mean"], [(z1, head(0, lambda x: mean.expand_as(x)))]),
        (["L0N3:zero"], [(post, head(3, lambda x: 0 * x))]),
        (["L0N7:scale=-4"], [(post, head(7, lambda x: -4 * x))]),
        (["L0N5:set=2.5@last"], [(post, last_neuron)]),
        (["0_attn_out:zero"], [("blocks.0.hook_attn_out", rows(everywhere, lambda x: 0 * x))]),
        (["1_mlp_out:zero"], [("blocks.1.hook_mlp_out", rows(everywhere, lambda x: 0 * x))]),
        (["0_mlp_out:scale=0.5@3-34"], [("blocks.0.hook_mlp_out", rows(slice(3, 35), lambda x: 0.5 * x))]),
        (["0_post:add=3*#17"], [(stream, rows(everywhere, lambda x: x + 3 * d))]),
        (["0_post:project=#17"], [(stream, rows(everywhere, lambda x: x - (x @ d)[..., None] * d))]),
        (["L1H1:zero", "L0N3:scale=-2"], [(z1, head(1, lambda x: 0 * x)), (post, head(3, lambda x: -2 * x))]),
    ]
    base, out = model(ids)[0, LAST].log_softmax(-1), []
    for edits, hooks in cases:
        values = model.run_with_hooks(ids, fwd_hooks=hooks)[0, LAST].log_softmax(-1)
        moved = (values - base)[sampled].abs().max().item()
        assert moved > 1e-3, f"{edits} changes {moved:.2g}"
        out.append({"edits": edits, "logprobs": values[sampled].tolist()})
    return out


def patches(model, clean, corrupted, mid, a, b):
    """Every activation of the clean prompt in the corrupted one: logit(a) - logit(b) behind the last position."""
    _, cache = model.run_with_cache(clean)

    def metric(logits):
        return logits[0, LAST, a] - logits[0, LAST, b]

    def sweep(function):
        return function(model, corrupted, cache, metric)

    p = patching
    grids = {"pre": p.get_act_patch_resid_pre, "attn_out": p.get_act_patch_attn_out, "mlp_out": p.get_act_patch_mlp_out,
             "heads": p.get_act_patch_attn_head_out_all_pos}
    if mid:
        grids["mid"] = p.get_act_patch_resid_mid
    out = {name: sweep(function) for name, function in grids.items()}
    out["heads_at"] = sweep(p.get_act_patch_attn_head_out_by_pos)[:, LAST]
    values = {"clean": metric(model(clean)), "corrupted": metric(model(corrupted))}
    for name, grid in out.items():
        moved = (grid - values["corrupted"]).abs().max().item()
        assert moved > 1e-2, f"patching {name} changes {moved:.2g}"
    assert abs(values["clean"] - values["corrupted"]) > 0.2, values
    return {name: value.tolist() for name, value in (values | out).items()}


# ---- the file ----

def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.6f}")
    if isinstance(value, dict):
        return {key: rounded(x) for key, x in value.items()}
    return [rounded(x) for x in value] if isinstance(value, list) else value


def make(name):
    model, golden = load(name), arrays(name)
    clean = torch.tensor(golden["ids"][None], dtype=torch.long)
    corrupted = clean.clone()
    for position, step in DIFFERENT.items():
        corrupted[0, position] = (clean[0, position] + step) % model.cfg.d_vocab
    logits, cache = model.run_with_cache(clean)
    same("the logits", logits[0][:, golden["sampled"]], torch.from_numpy(golden["logits"].copy()))
    sampled = golden["sampled"][:SAMPLED].tolist()
    mid = not getattr(model.cfg, "parallel_attn_mlp", False)
    positions = list(range(clean.shape[1])) if name in WHOLE else SOME
    a, b = logits[0, LAST].topk(2).indices.tolist()
    parts = attribution(name, model, cache, clean, a, b)
    swing = logits[0, LAST] - model(corrupted)[0, LAST]
    c, d = swing.argmax().item(), swing.argmin().item()
    return rounded({
        "by": f"TransformerLens {version('transformer_lens')}, TransformerBridge over transformers "
              f"{transformers.__version__}, torch {torch.__version__.partition('+')[0]}",
        "conventions": CONVENTIONS, "ids": clean[0].tolist(), "sampled": sampled, "positions": positions,
        "lens": lens(cache, logits[0], mid, sampled[:3], positions),
        "why": {"a": a, "b": b, "parts": parts},
        "ablations": ablations(name, model, cache, clean, sampled),
        "patch": {"ids": corrupted[0].tolist(), "a": c, "b": d, **patches(model, clean, corrupted, mid, c, d)},
    })


def distance(got, want):
    """The largest difference of two values of one form; infinite where the forms differ."""
    if isinstance(got, float) and isinstance(want, float):
        return abs(got - want) / max(1, abs(want))
    if isinstance(got, dict) and isinstance(want, dict) and list(got) == list(want):
        return max((distance(got[key], want[key]) for key in got), default=0)
    if isinstance(got, list) and isinstance(want, list) and len(got) == len(want):
        return max(map(distance, got, want), default=0)
    return 0 if got == want else float("inf")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("names", nargs="*", metavar="NAME")
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    (GOLDEN / "inspect").mkdir(exist_ok=True)
    for name in arguments.names or NAMES:
        path = GOLDEN / "inspect" / f"{name}.json"
        out = make(name)
        if not arguments.check:
            path.write_text(json.dumps(out, separators=(",", ":")).replace('],"', '],\n"') + "\n")
            print(f"{name}: {path.stat().st_size} bytes")
        elif not (gap := distance(out, json.loads(path.read_text()))) < NEAR:
            sys.exit(f"{name}: differs by {gap}")


if __name__ == "__main__":
    main()

"""How golden_families.py makes one tiny model: weights, the folder, the run of the reference, and its checks.

A model is only worth its bytes if a mistake shows. So each one is checked here: every tensor, every feature named in
its table line and (where there are any) every position matters to the answer, attention is not uniform, experts are
chosen clearly, and float32 is within 2e-5 of float64, so that 1e-4 is a fair demand.
"""

import dataclasses
import json
import math
import pathlib
import re
import struct
import tempfile
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import load_file, save

SEEN, SUBTLE = 1e-2, 2.5e-4  # what a mistake must change at least, relative to the largest logit
ROWS = [0, 1, 2, 7, 13, 20, 26, 33, 38, 39]
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclasses.dataclass
class Family:
    name: str
    kind: type        # class of transformers
    config: dict      # fields of its configuration
    tokens: Callable  # a maker of tiny_tokenizers
    task: str = "causal"
    salt: int = 0     # another draw, where the first has a near tie
    dtype: str = "F32"
    shard: int = 0    # bytes of a file; 0: one file
    style: Callable = None  # config.json as published folders have it
    names: Callable = None  # tensors as published folders have them
    gains: dict = dataclasses.field(default_factory=dict)    # pattern -> factor on what `fill` chooses
    matters: dict = dataclasses.field(default_factory=dict)  # feature -> fields of the configuration without it
    subtle: dict = dataclasses.field(default_factory=dict)   # the same, where less must suffice
    neutral: str = "^$"     # tensors that cannot matter (a key's bias without rotation)
    more: dict = dataclasses.field(default_factory=dict)     # other files of the folder
    T: int = 40
    short: int = 0          # a second golden, of so many tokens and with a context of so many
    expect: dict = dataclasses.field(default_factory=dict)   # used by tasks


# ---- weights ----

GAINS = [  # first match wins; matrices are scaled by 1/sqrt(inputs) besides
    (r"(q_proj|q_lin|\.q|query)\.weight", 2.0),
    (r"(k_proj|\.k|key)\.weight", 1.5),
    (r"(qkv_proj|query_key_value|c_attn|Wqkv)\.weight", 1.5),
    (r"relative_attention_bias", 1.5),
    (r"(lm_head|embed_out)\.weight", 2.0),
    (r"(mlp\.gate|router|gate)\.weight$", 2.0),
    (r"shared_expert_gate", 2.0),
    (r"(embed_positions|position_embeddings|wpe)\.weight", 0.7),
    (r"token_type_embeddings", 0.7),
]


def is_norm(name):
    return bool(re.search(r"(norm|layernorm|ln_|ln|norm1|norm2)[\w]*\.(weight|bias)$", name, re.I))


def fill(family, model, rng):
    """name -> float32 tensor: of order one everywhere, exactly what `dtype` can hold."""
    gemma = "gemma" in family.config.get("model", type(model).__name__.lower())
    state, seen = {}, {}
    for name, old in model.state_dict().items():
        if old.data_ptr() in seen and old.numel() > 1:
            state[name] = state[seen[old.data_ptr()]]
            continue
        seen[old.data_ptr()] = name
        noise = rng.standard_normal(tuple(old.shape))
        if is_norm(name):
            value = 0.2 * noise + (1.0 if name.endswith("weight") and not gemma else 0.0)
        elif name.endswith("bias") and old.ndim == 1:
            value = 0.3 * noise
        else:
            transposed = re.search(r"(c_attn|c_proj|c_fc)\.weight", name)  # Conv1D: [inputs][outputs]
            table = re.search(r"embed_tokens|embed_in|wte|wpe|_embeddings|shared\.|relative_attention_bias", name)
            inputs = old.shape[0] if transposed else old.shape[-1]
            value = noise if table else noise / math.sqrt(inputs)
            value = value * next((g for pattern, g in GAINS if re.search(pattern, name)), 1.0)
        value = value * next((g for pattern, g in family.gains.items() if re.search(pattern, name)), 1.0)
        pattern, times = family.expect.get("loud", ("^$", 1))
        if re.search(pattern, name):
            value[1] *= times  # the end token, so that generations end
        value = torch.from_numpy(np.ascontiguousarray(value, np.float32))
        state[name] = value.to(TYPES[family.dtype]).float()
    return state


def build(family, state, change=None, dtype=torch.float32):
    config = family.kind.config_class(**{**family.config, **(change or {})})
    config._attn_implementation = config._experts_implementation = "eager"
    model = family.kind(config).to(torch.float32).eval()
    if family.expect.get("untie"):  # this class ties its head whatever the configuration says
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    if state:
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not missing and not unexpected, (family.name, missing, unexpected)
    return model.to(dtype)


# ---- the folder ----

def shards(tensors, limit):
    """Tensors in order, a new file whenever `limit` bytes are full."""
    out, size = [{}], 0
    for name, tensor in tensors.items():
        n = tensor.numel() * tensor.element_size()
        if limit and size and size + n > limit:
            out.append({})
            size = 0
        out[-1][name] = tensor
        size += n
    return out


def dump(value):
    return (json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def folder(family, model, tokens):
    """file name -> bytes."""
    with tempfile.TemporaryDirectory() as path:
        path = pathlib.Path(path)
        model.save_pretrained(path)
        tensors = load_file(path / "model.safetensors")
        config = json.loads((path / "config.json").read_text())
        generation = path / "generation_config.json"
        files = {"generation_config.json": dump(json.loads(generation.read_text()))} if generation.exists() else {}
    config["dtype"] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[family.dtype]
    if family.style:
        config = family.style(config)
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    files["config.json"] = dump(config)
    tensors = {n: t.to(TYPES[family.dtype]) for n, t in sorted(tensors.items())}
    if family.names:
        tensors = family.names(tensors)
    parts = shards(tensors, family.shard)
    index = {}
    for i, part in enumerate(parts):
        name = "model.safetensors" if len(parts) == 1 else f"model-{i + 1:05}-of-{len(parts):05}.safetensors"
        files[name] = save({n: t.contiguous() for n, t in part.items()}, metadata={"format": "pt"})
        index.update({n: name for n in part})
    if len(parts) > 1:
        total = sum(t.numel() * t.element_size() for t in tensors.values())
        files["model.safetensors.index.json"] = dump({"metadata": {"total_size": total}, "weight_map": index})
    files["tokenizer.json"] = (tokens.json + "\n").encode()
    files["tokenizer_config.json"] = dump(tokens.config)
    for name, value in family.more.items():
        files[name] = dump(value)
    return files


def reload(family, files):
    """The model as transformers reads it from the folder."""
    with tempfile.TemporaryDirectory() as path:
        for name, data in files.items():
            file = pathlib.Path(path) / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
        options = {}
        if family.expect.get("own_config"):  # the published form belongs to code outside transformers
            options["config"] = family.kind.config_class(**family.config)
        model, info = family.kind.from_pretrained(path, attn_implementation="eager", experts_implementation="eager",
                                                  dtype=torch.float32, output_loading_info=True, **options)
    assert not info["missing_keys"] and not info["mismatched_keys"], (family.name, info)
    return model.eval()


# ---- running ----

def blocks(stack):
    """The blocks of a stack, and the module that gives the head its input (None: the last block's output)."""
    for layers, norm in (("layers", "norm"), ("layers", "final_layer_norm"), ("h", "ln_f"),
                         ("block", "final_layer_norm"), ("layer", ""), ("layers", "")):
        if hasattr(stack, layers) and (not norm or hasattr(stack, norm)):
            return getattr(stack, layers), getattr(stack, norm) if norm else None
    raise AssertionError(type(stack))


def first_of(output):
    return output[0] if isinstance(output, tuple) else output


class Watch:
    """Collects the stream of a stack: what enters its first block, what leaves each block, what leaves its norm."""

    def __init__(self, stack):
        layers, norm = blocks(stack)
        self.states, self.final = [], None
        self.hooks = [layer.register_forward_hook(lambda _m, _i, o: self.states.append(first_of(o)))
                      for layer in layers]
        self.hooks.append(layers[0].register_forward_pre_hook(self.enter, with_kwargs=True))
        if norm is not None:
            self.hooks.append(norm.register_forward_hook(lambda _m, _i, o: setattr(self, "final", o)))

    def enter(self, _module, args, kwargs):
        self.states.append(args[0] if args else kwargs["hidden_states"])

    def done(self):
        for hook in self.hooks:
            hook.remove()
        self.states = torch.stack([s.reshape(-1, s.shape[-1]) for s in self.states]).detach()
        if self.final is not None:
            self.final = self.final.reshape(-1, self.final.shape[-1]).detach()


def gap(got, want):
    return ((got - want).abs().max() / want.abs().max()).item()


def check(family, state, answer, want, positions=None):
    """`answer(model, **changes)` gives the tensor that mistakes must change."""
    worst = {}

    def must(what, value):
        worst[what] = value
        assert value > SEEN, f"{family.name}: {what} changes the answer by {value:.2g} only"

    for feature, change in family.matters.items():
        must(feature, gap(answer(build(family, state, change)), want))
    for feature, change in family.subtle.items():
        value = gap(answer(build(family, state, change)), want)
        assert value > SUBTLE, f"{family.name}: {feature} changes the answer by {value:.2g} only"
    if positions is not None:
        must("positions", positions)
    done = set()
    for name in state:
        if id(state[name]) in done or re.search(family.neutral, name):
            continue
        done.add(id(state[name]))
        zeroed = {n: torch.zeros_like(t) if t is state[name] else t for n, t in state.items()}
        must(name, gap(answer(build(family, zeroed)), want))
    exact = answer(build(family, state, dtype=torch.float64))
    error = gap(want.double(), exact)
    assert error < 2e-5, f"{family.name}: float32 is {error:.2g} from float64"
    weakest = min(worst, key=worst.get)
    return f"float64 {error:.0e}, weakest {weakest} {worst[weakest]:.2f}"


def focus(attentions):
    """Mean entropy of attention as a part of that of uniform attention, over rows that see at least 8 keys."""
    out = []
    for a in attentions:
        a = a.detach().double()
        seen = (a > 0).sum(-1)
        entropy = -(a * a.clamp_min(1e-30).log()).sum(-1)
        out.append((entropy / seen.clamp_min(2).log())[seen >= 5].mean().item())
    return max(out)


# ---- the golden file ----

class Golden:
    def __init__(self):
        self.parts = []

    def put(self, name, array):
        array = np.asarray(array)
        kind = 1 if array.dtype.kind in "iub" else 0
        array = np.ascontiguousarray(array, "<i4" if kind else "<f4")
        dims = list(array.shape) + [0] * (4 - array.ndim)
        self.parts.append(struct.pack("<24sII4I", name.encode(), kind, array.ndim, *dims) + array.tobytes())

    def stream(self, prefix, watch, rows):
        states = watch.states.numpy()
        self.put(prefix + "rows", rows)
        self.put(prefix + "norms", np.sqrt((states.astype(np.float64) ** 2).sum(-1)))
        self.put(prefix + "states", states[:, rows])
        if watch.final is not None:
            self.put(prefix + "final", watch.final.numpy()[rows])

    def logits(self, logits, sampled):
        self.put("sampled", sampled)
        self.put("logits", logits[:, sampled].numpy())
        self.put("logsumexp", torch.logsumexp(logits.double(), 1).numpy())
        self.put("argmax", logits.argmax(1).numpy())

    def bytes(self):
        return struct.pack("<8sI", b"KHFAMILY", len(self.parts)) + b"".join(self.parts)

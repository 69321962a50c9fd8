"""Make tests/golden/tiny/NAME.{gguf,bin}: tiny random models and what transformers computes from them.

The weights are made in GGUF's own conventions (rotated q and k rows for llama, norms stored as w + 1 for gemma3),
quantised and written; the reference model gets the same values dequantised and turned back. Shapes are odd on purpose.
File format: tests/golden/README.md.
"""

import dataclasses
import math
import pathlib
import struct

import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter, LlamaFileType, RopeScalingType
from gguf.quants import dequantize, quantize
from transformers import (Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

import hard_strings
import tiny_vocab

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "tiny"
TOKENS, SAMPLED = 48, 64
FILE_TYPE = {Q.F32: LlamaFileType.ALL_F32, Q.F16: LlamaFileType.MOSTLY_F16, Q.Q8_0: LlamaFileType.MOSTLY_Q8_0,
             Q.Q4_0: LlamaFileType.MOSTLY_Q4_0}


@dataclasses.dataclass
class Model:
    """One tiny model: N layers, D width, H heads of width E over G key heads, F feed-forward, V vocabulary."""

    name: str
    arch: str
    N: int
    D: int
    H: int
    G: int
    E: int
    F: int
    V: int
    quant: Q
    pre: str
    tied: bool = True
    base: float = 10000.0
    eps: float = 1e-5
    window: int = 0
    pattern: int = 6  # every pattern-th layer sees everything, the others the window
    local_base: float = 10000.0
    scaling: dict = dataclasses.field(default_factory=dict)
    cap: float = 0.0  # of the final logits; neither reference caps the attention of this family


MODELS = [
    Model("llama", "llama", 2, 72, 9, 3, 8, 56, 311, Q.F32, "gpt2"),
    Model("llama-linear", "llama", 2, 64, 4, 2, 16, 96, 400, Q.Q8_0, "llama-bpe", tied=False, base=5e5,
          scaling={"rope_type": "linear", "factor": 4.0}),
    Model("llama-llama3", "llama", 2, 96, 3, 3, 32, 64, 360, Q.Q4_0, "smollm", base=100.0,
          scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 64}),
    Model("llama-yarn", "llama", 2, 80, 5, 1, 24, 64, 330, Q.F16, "default", tied=False,
          scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    Model("qwen2", "qwen2", 2, 72, 6, 2, 12, 64, 309, Q.F32, "qwen2", base=1e6, eps=1e-6),
    Model("qwen2-q8", "qwen2", 2, 96, 6, 2, 16, 96, 380, Q.Q8_0, "qwen2", tied=False, base=1e6, eps=1e-6),
    Model("qwen3", "qwen3", 2, 64, 5, 5, 12, 48, 305, Q.F32, "qwen2", tied=False, base=1e6, eps=1e-6),
    Model("qwen3-q4", "qwen3", 3, 96, 6, 2, 24, 96, 520, Q.Q4_0, "qwen2", base=1e6, eps=1e-6),
    Model("gemma3", "gemma3", 6, 60, 3, 1, 16, 24, 340, Q.F32, "spm", base=1e6, eps=1e-6, window=8),
    Model("gemma3-q8", "gemma3", 4, 64, 4, 2, 32, 32, 420, Q.Q8_0, "spm", base=1e6, eps=1e-6, window=8,
          pattern=3, local_base=500.0, scaling={"rope_type": "linear", "factor": 8.0}, cap=6.0),
]


def tensors_of(m, rng):
    """name -> float32 array [rows][columns] in GGUF's conventions."""
    def matrix(rows, columns, gain=1.0):
        return (rng.standard_normal((rows, columns)) * gain / math.sqrt(columns)).astype(np.float32)

    def norm(width):
        return (1 + 0.2 * rng.standard_normal(width)).astype(np.float32)

    out = {"token_embd.weight": matrix(m.V, m.D, math.sqrt(m.D) * (0.25 if m.tied else 0.5) if m.arch != "gemma3" else 1.5)}
    for i in range(m.N):
        b = f"blk.{i}."
        out[b + "attn_norm.weight"] = norm(m.D)
        out[b + "attn_q.weight"] = matrix(m.H * m.E, m.D, 2.0)
        out[b + "attn_k.weight"] = matrix(m.G * m.E, m.D, 1.5)
        out[b + "attn_v.weight"] = matrix(m.G * m.E, m.D)
        if m.arch == "qwen2":
            for part, heads in (("q", m.H), ("k", m.G), ("v", m.G)):
                out[b + f"attn_{part}.bias"] = (0.4 * rng.standard_normal(heads * m.E)).astype(np.float32)
        if m.arch in ("qwen3", "gemma3"):
            out[b + "attn_q_norm.weight"] = norm(m.E) * np.float32(1.5)
            out[b + "attn_k_norm.weight"] = norm(m.E)
        out[b + "attn_output.weight"] = matrix(m.D, m.H * m.E)
        if m.arch == "gemma3":
            out[b + "post_attention_norm.weight"] = norm(m.D)
            out[b + "post_ffw_norm.weight"] = norm(m.D)
        out[b + "ffn_norm.weight"] = norm(m.D)
        out[b + "ffn_gate.weight"] = matrix(m.F, m.D)
        out[b + "ffn_up.weight"] = matrix(m.F, m.D)
        out[b + "ffn_down.weight"] = matrix(m.D, m.F)
    out["output_norm.weight"] = norm(m.D)
    if not m.tied:
        out["output.weight"] = matrix(m.V, m.D, 2.0)
    return out


def stored(m, name, values):
    """Type and bytes in the file, and the float32 values that the file then holds."""
    kind = m.quant
    if values.ndim == 1:
        kind = Q.F32
    elif kind in (Q.Q8_0, Q.Q4_0):
        if name in ("token_embd.weight", "output.weight"):
            kind = Q.Q8_0
        if values.shape[1] % 32:
            kind = Q.F16
    data = quantize(values, kind)
    return kind, data, dequantize(data, kind).reshape(values.shape).astype(np.float32)


def unpermute(weight, heads):
    """llama only: from interleaved rotary pairs (GGUF) to halves (transformers), row-wise within each head."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


HF_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "ffn_norm": "post_attention_layernorm",
}
GEMMA_NAMES = {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
               "post_ffw_norm": "post_feedforward_layernorm"}


def hf_state(m, values):
    state = {}
    for name, value in values.items():
        if m.arch == "llama" and ("attn_q." in name or "attn_k." in name):
            value = unpermute(value, m.H if "attn_q." in name else m.G)
        if m.arch == "gemma3" and name.endswith("norm.weight"):
            value = value - np.float32(1)
        if name.startswith("blk."):
            _, i, part, suffix = name.split(".")
            names = {**HF_NAMES, **GEMMA_NAMES} if m.arch == "gemma3" else HF_NAMES
            name = f"model.layers.{i}.{names[part]}.{suffix}"
        else:
            name = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight",
                    "output_norm.weight": "model.norm.weight"}[name]
        state[name] = torch.from_numpy(np.ascontiguousarray(value))
    if m.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def hf_model(m, values):
    rope = {"rope_type": "default", "rope_theta": m.base, **m.scaling}
    common = dict(vocab_size=m.V, hidden_size=m.D, intermediate_size=m.F, num_hidden_layers=m.N,
                  num_attention_heads=m.H, num_key_value_heads=m.G, head_dim=m.E, rms_norm_eps=m.eps,
                  max_position_embeddings=128, tie_word_embeddings=m.tied, attn_implementation="eager",
                  pad_token_id=None, bos_token_id=None, eos_token_id=None)
    if m.arch == "gemma3":
        config = Gemma3TextConfig(
            **common, sliding_window=m.window, query_pre_attn_scalar=m.E,
            layer_types=["full_attention" if (i + 1) % m.pattern == 0 else "sliding_attention" for i in range(m.N)],
            final_logit_softcapping=m.cap or None,
            rope_parameters={"full_attention": rope,
                             "sliding_attention": {"rope_type": "default", "rope_theta": m.local_base}})
        kind = Gemma3ForCausalLM
    else:
        kinds = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM),
                 "qwen3": (Qwen3Config, Qwen3ForCausalLM)}
        config_kind, kind = kinds[m.arch]
        config = config_kind(**common, rope_parameters=rope)
    model = kind(config).float().eval()
    missing, unexpected = model.load_state_dict(hf_state(m, values), strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return model


def llama3_factors(m):
    """rope_freqs.weight: what llama.cpp divides each rotary frequency by."""
    s, out = m.scaling, []
    for i in range(m.E // 2):
        wavelength = 2 * math.pi * m.base ** (2 * i / m.E)
        old = s["original_max_position_embeddings"]
        if wavelength < old / s["high_freq_factor"]:
            out.append(1.0)
        elif wavelength > old / s["low_freq_factor"]:
            out.append(s["factor"])
        else:
            smooth = (old / wavelength - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
            out.append(1 / ((1 - smooth) / s["factor"] + smooth))
    assert len(set(out)) > 2, "the factors should show all three ranges"
    return np.array(out, np.float32)


def write_gguf(m, vocab, tensors):
    w = GGUFWriter(OUT / f"{m.name}.gguf", m.arch)
    w.add_name(f"tiny random {m.name}")
    w.add_file_type(FILE_TYPE[m.quant])
    w.add_context_length(128)
    w.add_embedding_length(m.D)
    w.add_block_count(m.N)
    w.add_feed_forward_length(m.F)
    w.add_head_count(m.H)
    w.add_head_count_kv(m.G)
    w.add_layer_norm_rms_eps(m.eps)
    w.add_rope_freq_base(m.base)
    if m.E * m.H != m.D or m.arch in ("qwen3", "gemma3"):
        w.add_key_length(m.E)
        w.add_value_length(m.E)
    if m.arch == "llama":
        w.add_rope_dimension_count(m.E)
        w.add_vocab_size(m.V)
    if m.window:
        w.add_sliding_window(m.window)
        if m.pattern != 6:  # the two defaults of the family go without saying
            w.add_sliding_window_pattern(m.pattern)
        if m.local_base != 10000.0:
            w.add_rope_freq_base_swa(m.local_base)
    if m.cap:
        w.add_final_logit_softcapping(m.cap)
    kind = m.scaling.get("rope_type")
    if kind == "linear":
        w.add_rope_scaling_type(RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(m.scaling["factor"])
    elif kind == "yarn":
        w.add_rope_scaling_type(RopeScalingType.YARN)
        w.add_rope_scaling_factor(m.scaling["factor"])
        w.add_rope_scaling_orig_ctx_len(m.scaling["original_max_position_embeddings"])
    vocab.write(w)
    if kind == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(m))
    for name, (kind, data) in tensors.items():
        w.add_tensor(name, data, raw_dtype=None if kind in (Q.F32, Q.F16) else kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def run(m, model, ids):
    """logits [T][V], raw residuals after the embedding and each layer [N + 1][T][D], final normed state [T][D]."""
    states = []
    hooks = [layer.register_forward_hook(lambda _m, _i, o: states.append(o[0] if isinstance(o, tuple) else o))
             for layer in model.model.layers]
    first = []
    hooks.append(model.model.layers[0].register_forward_pre_hook(
        lambda _m, args, kwargs: first.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True))
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    states = torch.stack([first[0][0]] + [s.reshape(TOKENS, m.D) for s in states]).numpy()
    return out.logits[0].numpy(), states, out.hidden_states[-1][0].numpy()


def make(m, index):
    rng = np.random.default_rng(300 + index)
    if m.pre == "spm":
        vocab = tiny_vocab.train_spm(m.V, False, hard_strings.training_text()[:1])
    else:
        vocab = tiny_vocab.train_bpe(m.pre, m.V)
    assert len(vocab.tokens) == m.V
    tensors, values = {}, {}
    for name, value in tensors_of(m, rng).items():
        kind, data, values[name] = stored(m, name, value)
        tensors[name] = (kind, data)
    write_gguf(m, vocab, tensors)
    model = hf_model(m, values)
    ids = rng.integers(0, m.V, TOKENS)
    ids[20:26] = ids[4:10]  # something to attend to
    logits, states, final = run(m, model, ids.tolist())
    sampled = np.sort(rng.choice(m.V, SAMPLED, replace=False)).astype("<i4")
    lse = torch.logsumexp(torch.from_numpy(logits).double(), 1).numpy()
    norms = np.sqrt((states.astype(np.float64) ** 2).sum(-1))
    head = struct.pack("<8sIIIII", b"KHTINY01", TOKENS, m.V, SAMPLED, m.N, m.D)
    parts = [ids.astype("<i4"), sampled, logits[:, sampled].astype("<f4"), lse.astype("<f4"),
             logits.argmax(1).astype("<i4"), norms.astype("<f4"), states[-1].astype("<f4"), final.astype("<f4")]
    (OUT / f"{m.name}.bin").write_bytes(head + b"".join(p.tobytes() for p in parts))
    sizes = [(OUT / f"{m.name}.{e}").stat().st_size for e in ("gguf", "bin")]
    print(f"{m.name:13} gguf {sizes[0]:7} bin {sizes[1]:6}  logits {logits.min():.2f} .. {logits.max():.2f}"
          f"  entropy {(lse - (np.exp(logits - lse[:, None]) * logits).sum(1)).mean():.2f} of {math.log(m.V):.2f}"
          f"  norms {' '.join('%.1f' % n for n in norms.mean(1))}")
    return sum(sizes)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    print("total", sum(make(m, i) for i, m in enumerate(MODELS)))


if __name__ == "__main__":
    main()

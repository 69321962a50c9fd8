"""Make tests/golden/families: a model folder of every family, and what transformers computes from it.

The folders look like published ones (names of tensors, fields of config.json, buffers that old checkpoints carry);
shapes are odd on purpose. Each golden is computed by the model that transformers loads from the folder itself, in
float32, eager attention, one pass. Everything is made twice and must come out the same. Formats: tests/golden/README.md.

    golden_families.py [--check] [NAME ...]      --check: writes nothing, compares with what is there
"""

import argparse
import pathlib
import sys
import zlib

import numpy as np
import torch
import transformers

import family_runs
import tiny_tokenizers as tokens
from tiny_families import Family, build, fill, folder, reload

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "families"


# ---- config.json as published folders have it ----

def rope_fields(config):
    """rope_theta and rope_scaling instead of rope_parameters."""
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    config["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    return config


def rope_type(config):
    """The same, and the oldest name of the kind."""
    config = rope_fields(config)
    config["rope_scaling"]["type"] = config["rope_scaling"].pop("rope_type")
    return config


def phi3_style(config):
    config = rope_type(config)
    config["original_max_position_embeddings"] = config["rope_scaling"].pop("original_max_position_embeddings")
    return config


def default_rope(config):
    return rope_fields(config)


def qwen_style(config):
    config = rope_fields(config)
    config.pop("layer_types", None)
    config.update(use_sliding_window=False, sliding_window=32, max_window_layers=2)  # present, and off
    return config


def gemma2_style(config):
    config = rope_fields(config)
    config.pop("layer_types", None)
    return config


def gemma3_style(config):
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope["full_attention"].pop("rope_theta")
    config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = rope["full_attention"]
    config.pop("layer_types", None)
    config["sliding_window_pattern"] = 3
    config["torch_dtype"] = config.pop("dtype")
    return config


def neox_style(config):
    rope = config.pop("rope_parameters")
    config["rotary_emb_base"], config["rotary_pct"] = rope["rope_theta"], rope["partial_rotary_factor"]
    config["torch_dtype"] = config.pop("dtype")
    config.pop("attention_bias", None)
    return config


# ---- tensors as published folders have them ----

def gpt2_names(tensors):
    """The first checkpoints: without a prefix, with the causal masks."""
    out = {}
    for name, tensor in tensors.items():
        out[name.removeprefix("transformer.")] = tensor
    n = out["wpe.weight"].shape[0]
    for i in range(sum(name.endswith("ln_1.bias") for name in out)):
        out[f"h.{i}.attn.bias"] = torch.tril(torch.ones(n, n)).reshape(1, 1, n, n)
    return out


def neox_names(tensors):
    """With the masks and tables that old checkpoints carry."""
    out = dict(tensors)
    for i in range(sum("input_layernorm.bias" in name for name in tensors)):
        base = f"gpt_neox.layers.{i}.attention."
        out[base + "bias"] = torch.tril(torch.ones(48, 48)).bool().reshape(1, 1, 48, 48)
        out[base + "masked_bias"] = torch.tensor(-1e9)
        out[base + "rotary_emb.inv_freq"] = torch.tensor([1.0, 0.01])
    return out


def bert_names(tensors):
    """The first checkpoints: gamma and beta, the positions' ids, the heads of pretraining."""
    out = {}
    for name, tensor in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        out[name] = tensor
    D, T = out["bert.embeddings.word_embeddings.weight"].shape[1], out["bert.embeddings.position_embeddings.weight"].shape[0]
    out["bert.embeddings.position_ids"] = torch.arange(T).reshape(1, T)
    out["bert.pooler.dense.weight"], out["bert.pooler.dense.bias"] = torch.eye(D), torch.zeros(D)
    out["cls.seq_relationship.weight"], out["cls.seq_relationship.bias"] = torch.ones(2, D), torch.zeros(2)
    return out


def sentence_names(tensors):
    """As sentence-transformers writes: without a prefix, with the positions' ids."""
    T = tensors["embeddings.position_embeddings.weight"].shape[0]
    return {**tensors, "embeddings.position_ids": torch.arange(T).reshape(1, T)}


SENTENCE = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}],
    "sentence_bert_config.json": {"max_seq_length": 44, "do_lower_case": False},
}


def pooling(D, kind):
    return {**SENTENCE, "1_Pooling/config.json": {
        "word_embedding_dimension": D, "pooling_mode_cls_token": kind == "cls",
        "pooling_mode_mean_tokens": kind == "mean", "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False}}


def nomic_style(config):
    """The form that belongs to code outside transformers: GPT-2's names for the numbers."""
    return {"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "vocab_size": config["vocab_size"],
            "n_embd": config["hidden_size"], "n_head": config["num_attention_heads"],
            "n_layer": config["num_hidden_layers"], "n_inner": config["intermediate_size"],
            "n_positions": config["max_position_embeddings"], "layer_norm_epsilon": config["layer_norm_eps"],
            "rotary_emb_base": config["rope_parameters"]["rope_theta"], "rotary_emb_fraction": 1.0,
            "rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "rotary_scaling_factor": None,
            "activation_function": "swiglu", "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False,
            "prenorm": False, "parallel_block": False, "causal": False, "use_rms_norm": False,
            "type_vocab_size": config["type_vocab_size"], "pad_token_id": 0, "torch_dtype": config["dtype"]}


def t5_style(config):
    config = {k: v for k, v in config.items() if k not in ("dense_act_fn", "is_gated_act", "scale_decoder_outputs")}
    config["torch_dtype"] = config.pop("dtype")
    return config


def t5_gated_style(config):
    return {**t5_style(config), "tie_word_embeddings": False}


# ---- the models ----

def rope(kind="default", theta=10000.0, **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


def causal(N, D, H, G, F, V, **more):
    return dict(num_hidden_layers=N, hidden_size=D, num_attention_heads=H, num_key_value_heads=G, intermediate_size=F,
                vocab_size=V, max_position_embeddings=128, **more)


LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
YARN = dict(factor=4.0, original_max_position_embeddings=32)
LONG = dict(short_factor=[1.0, 1.1, 1.3], long_factor=[1.5, 2.25, 4.0], original_max_position_embeddings=32)

BERT = {"word_embeddings": 0.6}
T5 = {r"Attention\.q": 0.35}


def bert(N, D, H, F, V, **more):
    return dict(num_hidden_layers=N, hidden_size=D, num_attention_heads=H, intermediate_size=F, vocab_size=V,
                max_position_embeddings=48, **more)


def t5(N, decoder_layers, D, H, E, F, V, **more):
    return dict(num_layers=N, num_decoder_layers=decoder_layers, d_model=D, num_heads=H, d_kv=E, d_ff=F, vocab_size=V,
                decoder_start_token_id=0, **more)


FAMILIES = [
    Family("llama", transformers.LlamaForCausalLM,
           causal(3, 24, 3, 1, 35, 140, head_dim=10, tie_word_embeddings=False, rope_parameters=rope()),
           tokens.llama, shard=24000, style=default_rope),
    Family("llama-bias", transformers.LlamaForCausalLM,
           causal(2, 24, 6, 3, 33, 140, attention_bias=True, tie_word_embeddings=True, rms_norm_eps=0.02,
                  rope_parameters=rope(theta=500.0)),
           tokens.smollm, gains={"embed_tokens": 0.5}, subtle={"eps": {"rms_norm_eps": 1e-5}}),
    Family("llama-llama3", transformers.LlamaForCausalLM,
           causal(2, 25, 5, 5, 28, 140, head_dim=8, tie_word_embeddings=True,
                  rope_parameters=rope("llama3", 100.0, **LLAMA3)),
           tokens.llama, dtype="F16", style=rope_fields, gains={"embed_tokens": 0.5},
           matters={"long rope": {"rope_parameters": rope(theta=100.0)}}),
    Family("llama-linear", transformers.LlamaForCausalLM,
           causal(2, 24, 4, 2, 40, 144, tie_word_embeddings=False, rope_parameters=rope("linear", factor=4.0)),
           tokens.smollm, dtype="F16", style=rope_type, matters={"long rope": {"rope_parameters": rope()}}),
    Family("llama-yarn", transformers.LlamaForCausalLM,
           causal(2, 33, 3, 1, 40, 140, head_dim=14, tie_word_embeddings=False,
                  rope_parameters=rope("yarn", **YARN)),
           tokens.smollm, dtype="BF16", style=rope_fields, matters={"long rope": {"rope_parameters": rope()}}),
    Family("mistral", transformers.MistralForCausalLM,
           causal(3, 25, 5, 1, 28, 140, head_dim=8, sliding_window=7, tie_word_embeddings=False,
                  rope_parameters=rope(theta=1000.0)),
           tokens.smollm, dtype="BF16", style=default_rope, matters={"window": {"sliding_window": None},
                                                       "one key more": {"sliding_window": 8}}),
    Family("mixtral", transformers.MixtralForCausalLM,
           causal(2, 24, 4, 2, 20, 140, num_local_experts=5, num_experts_per_tok=2, tie_word_embeddings=False,
                  sliding_window=None, rope_parameters=rope(theta=1e6)),
           tokens.smollm, dtype="F16", salt=1, style=default_rope, matters={"experts of a token": {"num_experts_per_tok": 1}}),
    Family("phi3", transformers.Phi3ForCausalLM,
           causal(2, 24, 3, 1, 30, 140, tie_word_embeddings=False, original_max_position_embeddings=32,
                  rope_parameters=rope("longrope", partial_rotary_factor=0.75, **LONG), pad_token_id=0),
           tokens.smollm, style=phi3_style, short=30,
           matters={"long rope": {"rope_parameters": rope(partial_rotary_factor=0.75)},
                    "factors": {"rope_parameters": rope("longrope", partial_rotary_factor=0.75,
                                                        **{**LONG, "long_factor": LONG["short_factor"]})}}),
    Family("phi3-window", transformers.Phi3ForCausalLM,
           causal(3, 24, 3, 3, 28, 140, tie_word_embeddings=False, sliding_window=9, rope_parameters=rope(),
                  pad_token_id=0),
           tokens.smollm, dtype="F16", style=default_rope, matters={"window": {"sliding_window": None}}),
    Family("qwen2", transformers.Qwen2ForCausalLM,
           causal(3, 28, 7, 1, 36, 152, tie_word_embeddings=True, rope_parameters=rope(theta=1e6)),
           tokens.qwen, dtype="F16", style=qwen_style, gains={"embed_tokens": 0.5}),
    Family("qwen2-moe", transformers.Qwen2MoeForCausalLM,
           causal(2, 24, 3, 1, 28, 140, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=13,
                  shared_expert_intermediate_size=21, norm_topk_prob=False, decoder_sparse_step=1,
                  tie_word_embeddings=False, rope_parameters=rope(theta=1e6)),
           tokens.qwen, dtype="BF16", style=qwen_style, matters={"norm of the router": {"norm_topk_prob": True}}),
    Family("qwen3", transformers.Qwen3ForCausalLM,
           causal(3, 25, 5, 1, 36, 140, head_dim=14, tie_word_embeddings=True, rope_parameters=rope(theta=1e6)),
           tokens.qwen, dtype="BF16", style=qwen_style, gains={"embed_tokens": 0.5, "q_norm": 1.5}),
    Family("qwen3-moe", transformers.Qwen3MoeForCausalLM,
           causal(2, 24, 4, 2, 28, 140, head_dim=8, num_experts=7, num_experts_per_tok=3, moe_intermediate_size=10,
                  norm_topk_prob=True, decoder_sparse_step=1, tie_word_embeddings=False,
                  rope_parameters=rope(theta=1e6)),
           tokens.qwen, salt=2, style=qwen_style, gains={"q_norm": 1.5},
           matters={"norm of the router": {"norm_topk_prob": False}}),
    Family("gemma2", transformers.Gemma2ForCausalLM,
           causal(3, 24, 3, 1, 28, 140, head_dim=10, query_pre_attn_scalar=7, sliding_window=6,
                  attn_logit_softcapping=4.0, final_logit_softcapping=5.0, rope_parameters=rope()),
           tokens.smollm, dtype="BF16", style=gemma2_style, gains={"embed_tokens": 0.3},
           subtle={"kind of GELU": {"hidden_activation": "gelu"}},
           matters={"window": {"sliding_window": 64}, "cap of scores": {"attn_logit_softcapping": None},
                    "cap of logits": {"final_logit_softcapping": None}, "scale": {"query_pre_attn_scalar": 10},
                    "which layers": {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}}),
    Family("gemma3", transformers.Gemma3ForCausalLM,
           causal(4, 24, 3, 1, 20, 140, head_dim=10, query_pre_attn_scalar=9, sliding_window=6,
                  layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
                  rope_parameters={"full_attention": rope("linear", 1e6, factor=8.0),
                                   "sliding_attention": rope(theta=500.0)}),
           tokens.smollm, style=gemma3_style, gains={"embed_tokens": 0.3, "q_norm": 2.0},
           subtle={"kind of GELU": {"hidden_activation": "gelu"}},
           matters={"window": {"sliding_window": 64},
                    "one rope": {"rope_parameters": {"full_attention": rope("linear", 1e6, factor=8.0),
                                                     "sliding_attention": rope(theta=1e6)}},
                    "which layers": {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]}}),
    Family("gpt2", transformers.GPT2LMHeadModel,
           dict(n_layer=3, n_embd=21, n_head=3, n_inner=33, n_positions=40, vocab_size=140, layer_norm_epsilon=0.02),
           tokens.gpt2, names=gpt2_names, gains={"wte": 0.5, "c_fc": 1.5, "mlp.c_proj": 2.0},
           subtle={"kind of GELU": {"activation_function": "gelu"}, "eps": {"layer_norm_epsilon": 1e-5}}),
    Family("gptneox", transformers.GPTNeoXForCausalLM,
           dict(num_hidden_layers=2, hidden_size=32, num_attention_heads=2, intermediate_size=44, vocab_size=144,
                max_position_embeddings=48, rope_parameters=rope(partial_rotary_factor=0.25)),
           tokens.neox, names=neox_names, style=neox_style, dtype="F16", gains={"mlp.dense_4h": 3.0, "embed_in": 0.5},
           subtle={"kind of GELU": {"hidden_act": "gelu_new"}},
           matters={"parallel residual": {"use_parallel_residual": False},
                    "partial rotation": {"rope_parameters": rope(partial_rotary_factor=1.0)}}),
    Family("gptneox-serial", transformers.GPTNeoXForCausalLM,
           dict(num_hidden_layers=3, hidden_size=30, num_attention_heads=3, intermediate_size=36, vocab_size=140,
                max_position_embeddings=48, use_parallel_residual=False,
                rope_parameters=rope(partial_rotary_factor=0.4)),
           tokens.neox, style=neox_style, dtype="BF16",
           matters={"parallel residual": {"use_parallel_residual": True},
                    "partial rotation": {"rope_parameters": rope(partial_rotary_factor=1.0)}}),
    Family("bert", transformers.BertForMaskedLM, bert(3, 24, 3, 36, 150), tokens.word_piece, task="mlm",
           names=bert_names, neutral=r"key\.bias|pooler", gains=BERT, subtle={"kind of GELU": {"hidden_act": "gelu_new"}}),
    Family("bert-qa", transformers.BertForQuestionAnswering, bert(2, 27, 3, 40, 150, layer_norm_eps=0.02),
           tokens.word_piece, task="qa", dtype="F16", neutral=r"key\.bias", gains=BERT,
           subtle={"eps": {"layer_norm_eps": 1e-12}}),
    Family("bert-embed", transformers.BertModel, bert(3, 30, 5, 36, 154, hidden_act="relu"), tokens.word_piece,
           task="embed", names=sentence_names, dtype="BF16", neutral=r"key\.bias|pooler", gains=BERT,
           more=pooling(30, "mean"), matters={"kind of activation": {"hidden_act": "gelu"}}),
    Family("roberta", transformers.RobertaForMaskedLM,
           {**bert(2, 24, 4, 33, 142), "max_position_embeddings": 50, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
           tokens.roberta, task="mlm", neutral=r"key\.bias", gains=BERT),
    Family("distilbert", transformers.DistilBertForMaskedLM,
           dict(n_layers=3, dim=24, n_heads=4, hidden_dim=33, vocab_size=151, max_position_embeddings=45),
           tokens.word_piece, task="mlm", dtype="F16", neutral=r"k_lin\.bias", gains={**BERT, r"k_lin\.weight": 1.5},
           expect={"segments": 0}),
    Family("nomic-bert", transformers.NomicBertModel,
           dict(num_hidden_layers=3, hidden_size=24, num_attention_heads=3, intermediate_size=32, vocab_size=152,
                max_position_embeddings=64, layer_norm_eps=1e-12, rope_parameters=rope(theta=1000.0)),
           tokens.word_piece, task="embed", dtype="F16", style=nomic_style, gains=BERT, more=pooling(24, "mean"),
           expect={"own_config": True}, matters={"rope base": {"rope_parameters": rope(theta=100.0)}}),
    Family("t5", transformers.T5ForConditionalGeneration,
           t5(2, 3, 24, 3, 7, 40, 156, feed_forward_proj="relu"),
           tokens.unigram, task="t5", salt=1, style=t5_style, gains=T5, expect={"most": 16, "loud": ("shared", 10)}),
    Family("t5-gated", transformers.T5ForConditionalGeneration,
           t5(3, 2, 21, 5, 6, 28, 150, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
           tokens.unigram, task="t5", dtype="F16", style=t5_gated_style, gains=T5, expect={"most": 16, "loud": ("lm_head", 4), "untie": True}),
    Family("t5-encoder", transformers.T5EncoderModel,
           t5(3, 3, 24, 4, 5, 30, 150, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
           tokens.unigram, task="t5-encoder", style=t5_gated_style, dtype="F16", gains=T5),
]


def make(family):
    """file name in OUT -> bytes, and a line about it."""
    seed = zlib.crc32(f"{family.name}{family.salt}".encode())
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed & 0x7fffffff)  # what is drawn before `fill` replaces it
    words = family.tokens()
    marks = {f"{role}_token_id": id for role, id in words.marks.items() if role in ("bos", "eos", "pad")}
    family.config = {**marks, **family.config}
    assert words.size <= family.config["vocab_size"]
    state = fill(family, build(family, None), rng)
    files = folder(family, build(family, state), words)
    model = reload(family, files)
    goldens, line = family_runs.RUNS[family.task](family, model, state, words, rng)
    out = {f"{family.name}/{name}": data for name, data in files.items()}
    out.update(goldens)
    return out, line


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    total, stale = 0, []
    for family in FAMILIES:
        if args.names and family.name not in args.names:
            continue
        first, line = make(family)
        again, _ = make(family)
        assert first == again, f"{family.name}: a second run gives other bytes"
        size = sum(map(len, first.values()))
        total += size
        print(f"{family.name:15} {size:7} bytes  {line}", flush=True)
        for name, data in first.items():
            path = OUT / name
            if args.check:
                stale += [name] if not path.exists() or path.read_bytes() != data else []
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        held = {str(p.relative_to(OUT)) for p in (OUT / family.name).rglob("*") if p.is_file()}
        for name in sorted(held - set(first)):
            stale.append(name)
            if not args.check:
                (OUT / name).unlink()
    print("total", total)
    if stale and args.check:
        sys.exit("differ: " + " ".join(stale))


if __name__ == "__main__":
    main()

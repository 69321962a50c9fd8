"""Make tests/fuzz/corpus/model, plan and prompt: small inputs from which fuzzing starts.

A model is a fill byte and a GGUF header (tests/fuzz/fuzz_model.c makes up the data of the tensors). The
headers are written with struct alone, not with the code under test. Running it twice gives the same bytes.
"""

import struct

from fuzz_corpus_gguf import BLOCKS, BOOL, F32, I32, OUT, STRING, U32, array, key, text

CORPUS = OUT.parent
F16, Q4_0, Q4_1, Q8_0, Q2_K, Q4_K, Q6_K, IQ4_NL, BF16 = 1, 2, 3, 8, 10, 12, 14, 20, 30
V = 300
ZEROS, ONES, NOISE, TAME, VERIFY = 0, 1, 2, 3, 0x40


def byte_letters():
    """The letters that stand for bytes in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def bpe(pre):
    letters = byte_letters()
    pairs = [("k", "e"), ("ke", "y"), ("h", "o"), ("l", "e"), ("ho", "le"), ("\u0120", "ho"), ("4", "2")]
    tokens = ["<|im_start|>", "<|im_end|>", "<tool>", *letters, *(a + b for a, b in pairs)]
    tokens += [f"<pad{i}>" for i in range(V - len(tokens))]
    kinds = [3, 3, 4] + [1] * (256 + len(pairs))
    kinds += [5] * (V - len(kinds))
    return [key("tokenizer.ggml.model", STRING, "gpt2"), key("tokenizer.ggml.pre", STRING, pre),
            array("tokenizer.ggml.tokens", STRING, tokens), array("tokenizer.ggml.token_type", I32, kinds),
            array("tokenizer.ggml.merges", STRING, [f"{a} {b}" for a, b in pairs]),
            key("tokenizer.ggml.bos_token_id", U32, 0), key("tokenizer.ggml.eos_token_id", U32, 1)]


def pieces():
    words = ["\u2581", "k", "e", "y", "ke", "key", "\u2581ke", "h", "o", "l", "ho", "hole", "le", "42"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *words]
    tokens += [f"unused{i}" for i in range(V - len(tokens))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(words)
    kinds += [5] * (V - len(kinds))
    scores = [-float(i) for i in range(V)]
    return [key("tokenizer.ggml.model", STRING, "llama"), array("tokenizer.ggml.tokens", STRING, tokens),
            array("tokenizer.ggml.scores", F32, scores), array("tokenizer.ggml.token_type", I32, kinds),
            key("tokenizer.ggml.bos_token_id", U32, 1), key("tokenizer.ggml.eos_token_id", U32, 2),
            key("tokenizer.ggml.unknown_token_id", U32, 0), key("tokenizer.ggml.add_bos_token", BOOL, 1)]


def numbers(arch, layers, D, F, H, G, E=None, **more):
    n = {"block_count": layers, "embedding_length": D, "context_length": 64, "feed_forward_length": F,
         "attention.head_count": H, "attention.head_count_kv": G}
    if E:
        n |= {"attention.key_length": E, "attention.value_length": E}
    out = [key("general.architecture", STRING, arch)]
    out += [key(f"{arch}.{name}", U32, value) for name, value in n.items()]
    out.append(key(f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5))
    for name, value in more.items():
        kind = STRING if isinstance(value, str) else F32 if isinstance(value, float) else U32
        out.append(key(f"{arch}.{name.replace('__', '.')}", kind, value))
    return out


def block(layer, D, F, H, G, E, kind, wide, parts):
    """Tensors of a block; `kind` is the type of matrices with D columns, `wide` of the others."""
    he, ge = H * E, G * E
    t = [("attn_norm.weight", 0, (D,)), ("ffn_norm.weight", 0, (D,)), ("attn_q.weight", kind, (D, he)),
         ("attn_k.weight", kind, (D, ge)), ("attn_v.weight", kind, (D, ge)), ("attn_output.weight", wide, (he, D)),
         ("ffn_gate.weight", kind, (D, F)), ("ffn_up.weight", kind, (D, F)), ("ffn_down.weight", wide, (F, D))]
    if "bias" in parts:
        t += [("attn_q.bias", 0, (he,)), ("attn_k.bias", F16, (ge,)), ("attn_v.bias", BF16, (ge, 1))]
    if "qk" in parts:
        t += [("attn_q_norm.weight", 0, (E,)), ("attn_k_norm.weight", 0, (E,))]
    if "post" in parts:
        t += [("post_attention_norm.weight", 0, (D,)), ("post_ffw_norm.weight", 0, (D,))]
    return [(f"blk.{layer}.{name}", type_id, dims) for name, type_id, dims in t]


def header(keys, tensors):
    infos, offset = b"", 0
    for name, kind, dims in tensors:
        infos += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        elements, size = BLOCKS[kind]
        count = 1
        for d in dims:
            count *= d
        offset += (count // elements * size + 31) // 32 * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + infos
    return head + b"\0" * (-len(head) % 32)


def model(fill, arch, vocabulary, layers, D, F, H, G, E, kind, wide, parts=(), head=None, embedding=Q8_0, **more):
    keys = numbers(arch, layers, D, F, H, G, E, **more) + vocabulary
    tensors = [("token_embd.weight", embedding, (D, V)), ("output_norm.weight", 0, (D,))]
    if head is not None:
        tensors.append(("output.weight", head, (D, V)))
    for layer in range(layers):
        tensors += block(layer, D, F, H, G, E or D // H, kind, wide, parts)
    return bytes([fill]) + header(keys, tensors)


def models():
    return {
        "llama_q8": model(TAME, "llama", bpe("smollm"), 1, 32, 64, 4, 2, None, Q8_0, Q8_0),
        "llama_f32": model(NOISE, "llama", pieces(), 1, 34, 22, 1, 1, None, 0, 0, embedding=0, head=F16),
        "llama_yarn": model(TAME, "llama", bpe("llama-bpe"), 1, 32, 32, 2, 1, None, Q4_0, Q4_1,
                            rope__scaling__type="yarn", rope__scaling__factor=4.0, rope__freq_base=5e5,
                            rope__scaling__original_context_length=32, rope__dimension_count=8),
        "llama_linear": model(VERIFY | TAME, "llama", bpe("gpt-2"), 1, 32, 32, 2, 2, None, IQ4_NL, F16,
                              rope__scaling__type="linear", rope__scaling__factor=2.0),
        "qwen2_bias": model(TAME, "qwen2", bpe("qwen2"), 1, 32, 32, 4, 1, None, Q8_0, Q4_1, ["bias"]),
        "qwen3_k": model(VERIFY | TAME, "qwen3", bpe("qwen2"), 1, 256, 256, 2, 1, 32, Q2_K, Q4_0, ["qk"], Q6_K, Q4_K),
        "gemma3": model(TAME, "gemma3", pieces(), 2, 32, 32, 2, 1, 16, Q8_0, Q8_0, ["qk", "post"],
                        attention__sliding_window=3, attention__sliding_window_pattern=2,
                        rope__freq_base=1e6, final_logit_softcapping=30.0, attn_logit_softcapping=50.0),
        "nan": model(ONES, "qwen3", bpe("default"), 1, 32, 32, 2, 1, 32, Q8_0, 0, ["qk"]),
        "zero": model(VERIFY | ZEROS, "llama", pieces(), 1, 32, 32, 1, 1, None, BF16, Q4_1),
        "long": model(TAME, "llama", bpe("smollm"), 1, 32, 32, 2, 1, None, Q8_0, Q8_0).replace(
            text("llama.context_length") + struct.pack("<II", U32, 64),
            text("llama.context_length") + struct.pack("<II", U32, 1 << 30)),
    }


PLANS = {
    "full": "full", "auto": "auto", "window": "window:recent=4,sinks=2", "topk": "topk:k=64",
    "layers": "0-1=full;2-=topk:k=64,recent=8,sinks=4,min-p=0.01,tail=mean",
    "heads": "*.0-1=window:recent=3;3.2=topk:k=1;5-7.*=full", "phases": "prefill=full;decode=topk:k=64",
    "both": "prefill=0=full;1-.3=topk:k=2,tail=mean;decode=window:recent=1", "broken": "topk:k=0,,=;;-1=x",
    "huge": "topk:k=16777216,min-p=1e-30", "decode": "decode=0-0=topk:k=9,min-p=0x1p-3",
}
SIZES = bytes([7, 3])


def edits(which, *list_of_edits):
    out = bytes([which])
    for place, how, value in list_of_edits:
        out += struct.pack("<I", place)[:3] + struct.pack("<BH", how, value)
    return out


PROMPTS = {
    "whole_0": edits(0), "whole_1": edits(1), "whole_2": edits(2), "whole_3": edits(3),
    "version": edits(0, (8, 3, 2)), "head_size": edits(1, (16, 3, 0xffff)), "tokens": edits(2, (24, 3, 71)),
    "many_tokens": edits(0, (24, 3, 0x8000)), "cut": edits(1, (999, 2, 0)), "name": edits(3, (40, 1, 65)),
    "ids": edits(0, (230, 4, 30)), "keys": edits(1, (2000, 4, 255), (3000, 5, 255), (4000, 0, 124)),
    "scales": edits(3, (1200, 4, 255), (2400, 4, 3)), "itself": b"\xffKHPROMPT" + bytes(24),
}


def main():
    for folder, files in ("model", models()), ("prompt", PROMPTS), \
            ("plan", {name: SIZES + plan.encode() for name, plan in PLANS.items()}):
        (CORPUS / folder).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (CORPUS / folder / name).write_bytes(data)
            print(f"{folder}/{name:12} {len(data):6}")


if __name__ == "__main__":
    main()

"""Make tests/golden/logits/<model>.{bin,txt}: what Hugging Face transformers computes from the same GGUF file.

Weights dequantised, everything in float32, eager attention, one pass over 1,000 tokens of a novel.
File format: tests/golden/README.md.

    golden_logits.py TEXT [--models DIR] [--full DIR] [--only NAME]
    golden_logits.py TEXT --perplexity TOKENS [--only NAME]

TEXT is examples/persuasion.txt; the passage starts at character 50,000.
--full also writes all logits as float32 [1000][V] (.npy, not committed). --perplexity prints the perplexity of
the first TOKENS tokens of the passage and of its second half instead, to compare with published figures.
"""

import argparse
import hashlib
import os
import pathlib
import struct

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "logits"
MODELS = {"smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3": "gemma-3-270m-q4_k_m.gguf"}
BOS = {"smollm2": [], "gemma3": [2]}  # as the files' add_bos_token says
START, TOKENS, SAMPLED_ROWS, SAMPLED_IDS, TOP = 50_000, 1000, 256, 96, 32


def load(folder, name):
    kwargs = {"gguf_file": MODELS[name]}
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **kwargs).eval()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    return model, AutoTokenizer.from_pretrained(folder, **kwargs)


def encode(tokenizer, name, text):
    return BOS[name] + tokenizer(text, add_special_tokens=False).input_ids


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def passage(tokenizer, name, text):
    """The longest text that encodes to exactly the first TOKENS ids, and those ids."""
    ids = encode(tokenizer, name, text[START:START + 40_000])[:TOKENS]
    low = len(tokenizer.decode(ids[len(BOS[name]):], clean_up_tokenization_spaces=False))
    exact = text[START:START + low]
    assert encode(tokenizer, name, exact) == ids, "the cut changes the tokens"
    return exact, ids


def perplexity(logits, ids):
    nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none").double()
    half = len(ids) // 2 - 1
    return nll.mean().exp().item(), nll[half:].mean().exp().item()


def write(name, file, text, ids, logits):
    logits = logits.numpy()
    vocab = logits.shape[1]
    rng = np.random.default_rng(20)
    sampled = np.sort(rng.choice(vocab, SAMPLED_IDS, replace=False)).astype("<i4")
    top = np.argsort(-logits, axis=1, kind="stable")[:, :TOP].astype("<i4")  # ties: lower id first
    lse = torch.logsumexp(torch.from_numpy(logits).double(), 1).numpy()
    following = np.zeros(TOKENS, "<f4")
    following[:-1] = logits[np.arange(TOKENS - 1), ids[1:]]
    head = struct.pack("<8s32sIIIII", b"KHLOGIT1", hashlib.sha256(file.read_bytes()).digest(),
                       TOKENS, vocab, SAMPLED_ROWS, SAMPLED_IDS, TOP)
    parts = [np.array(ids, "<i4"), sampled, logits[:SAMPLED_ROWS][:, sampled].astype("<f4"),
             lse.astype("<f4"), following, top, np.take_along_axis(logits, top, 1).astype("<f4")]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.bin").write_bytes(head + b"".join(p.tobytes() for p in parts))
    (OUT / f"{name}.txt").write_bytes(text.encode("utf-8"))


def main():
    args = argparse.ArgumentParser()
    args.add_argument("text", type=pathlib.Path)
    args.add_argument("--models", default=os.environ.get("KEYHOLE_MODELS", "~/.cache/keyhole/models"))
    args.add_argument("--full", type=pathlib.Path)
    args.add_argument("--only", choices=MODELS)
    args.add_argument("--perplexity", type=int)
    args = args.parse_args()
    folder = pathlib.Path(args.models).expanduser()
    text = args.text.read_bytes().decode("utf-8")
    torch.manual_seed(0)
    for name in [args.only] if args.only else MODELS:
        model, tokenizer = load(folder, name)
        if args.perplexity:
            ids = encode(tokenizer, name, text[START:])[:args.perplexity]
            print(name, len(ids), "tokens: %.2f / %.2f" % perplexity(logits_of(model, ids), ids))
            continue
        exact, ids = passage(tokenizer, name, text)
        logits = logits_of(model, ids)
        write(name, folder / MODELS[name], exact, ids, logits)
        print(name, "perplexity of the passage %.3f / %.3f" % perplexity(logits, ids))
        if args.full:
            np.save(args.full / f"ref_logits_{name}.npy", logits.numpy())


if __name__ == "__main__":
    main()

"""Make tests/golden/lora: PEFT adapters of models in tests/golden/families, and what they compute.

Each adapter is made, filled with random numbers and saved by PEFT itself, then loaded again by PEFT over the
folder of the family; the golden is what that computes in float32. Everything is made twice and must come out
the same. Formats: tests/golden/README.md.

    golden_lora.py [--check] [NAME ...]      --check: writes nothing, compares with what is there
"""

import argparse
import json
import pathlib
import sys
import tempfile
import warnings
import zlib

import numpy as np
import peft
import torch
import transformers

from tiny_families import Golden, gap

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
OUT = GOLDEN / "lora"
SAMPLED = 24

LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    # everything that can be adapted; own ranks and alphas by a name, the end of a name and a pattern
    "llama": dict(r=4, lora_alpha=6, target_modules=[*LLAMA, "lm_head", "embed_tokens"],
                  rank_pattern={"layers.1.mlp.down_proj": 2, r".*\.2\.self_attn\.v_proj": 3},
                  alpha_pattern={"q_proj": 5, r"^model\.layers\.[01]\.mlp\.up_proj": 9}),
    # matrices that are stored [inputs][outputs]; scales by the root of the rank
    "gpt2": dict(r=3, lora_alpha=4, target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True,
                 use_rslora=True),
    # a head that is the embedding, of which only the head is adapted; some layers; bfloat16
    "qwen2": dict(r=5, lora_alpha=10, target_modules=["q_proj", "k_proj", "v_proj", "lm_head"],
                  layers_to_transform=[0, 2], dtype=torch.bfloat16),
    # an embedding that is scaled and also the head; float16
    "gemma3": dict(r=2, lora_alpha=3, target_modules=["q_proj", "o_proj", "gate_proj", "down_proj", "embed_tokens"],
                   dtype=torch.float16),
    # q, k and v of a head together
    "gptneox": dict(r=6, lora_alpha=12, target_modules=["query_key_value", "dense", "dense_4h_to_h"]),
    # q, k, v in one tensor, gate and up in another
    "phi3": dict(r=4, lora_alpha=4, target_modules=["qkv_proj", "gate_up_proj", "o_proj"]),
}


def base(name):
    return transformers.AutoModelForCausalLM.from_pretrained(
        GOLDEN / "families" / name, dtype=torch.float32, attn_implementation="eager").eval()


def answer(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids.tolist()])).logits[0]


def save(name, folder, rng):
    """An adapter that PEFT made; its numbers are ours."""
    options = dict(ADAPTERS[name])
    dtype = options.pop("dtype", torch.float32)
    config = peft.LoraConfig(task_type="CAUSAL_LM", inference_mode=True, **options)
    model = peft.get_peft_model(base(name), config)
    for key, value in sorted(model.named_parameters()):
        if "lora_" in key:
            spread = 1 / np.sqrt(value.shape[1 if "lora_A" in key or "embedding_B" in key else 0])
            value.data = torch.tensor(rng.normal(0, spread, value.shape), dtype=dtype)
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    written = json.loads(path.read_text())
    written["target_modules"].sort()  # a set, in any order
    path.write_text(json.dumps(written, indent=2, sort_keys=True))


def check(name, folder, ids, want):
    """Every adapted module matters."""
    least = 1e9
    model = peft.PeftModel.from_pretrained(base(name), folder).eval()
    assert gap(answer(base(name), ids), want) > 0.05, f"{name}: the adapter hardly matters"
    for key, value in model.named_parameters():
        if "lora_B" not in key and "embedding_B" not in key:
            continue
        kept = value.data.clone()
        value.data.zero_()
        moved = gap(answer(model, ids), want)
        value.data = kept
        assert moved > 2e-3, f"{name}: {key} moves the logits by {moved}"
        least = min(least, moved)
    assert torch.equal(answer(model, ids), want)
    return least


def make(name):
    """file name in OUT -> bytes, and a line about it."""
    rng = np.random.default_rng(zlib.crc32(f"lora {name}".encode()))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        save(name, folder, rng)
        model = peft.PeftModel.from_pretrained(base(name), folder).eval()
        V = model.config.vocab_size
        ids = rng.integers(3, V - 12, 40)
        want = answer(model, ids)
        least = check(name, folder, ids, want)
        golden = Golden()
        golden.put("ids", ids)
        golden.logits(want, np.sort(rng.choice(V, SAMPLED, replace=False)))
        out = {f"{name}/{p.name}": p.read_bytes() for p in sorted(folder.iterdir())}
    out[f"{name}.bin"] = golden.bytes()
    return out, f"each module moves the logits by {least:.0e} or more"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    stale = []
    for name in args.names or ADAPTERS:
        first, line = make(name)
        again, _ = make(name)
        assert first == again, f"{name}: a second run gives other bytes"
        print(f"{name:15} {sum(map(len, first.values())):7} bytes  {line}", flush=True)
        for file, data in first.items():
            path = OUT / file
            if args.check:
                stale += [file] if not path.exists() or path.read_bytes() != data else []
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    if stale:
        sys.exit("differ: " + " ".join(stale))


if __name__ == "__main__":
    main()

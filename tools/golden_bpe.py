"""Make tests/golden/bpe.jsonl: what the BPE trainer of `tokenizers` learns from texts that are here.

One line a case: the options, where the texts come from, and the merges in their order. With --fuzz KEYHOLE N: trains on
N random texts with `keyhole tokenizer train` too and compares the whole vocabulary, merges and all.

    golden_bpe.py [--fuzz KEYHOLE N]
"""

import argparse
import json
import pathlib
import random
import subprocess
import tempfile

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

import hard_strings

ROOT = pathlib.Path(__file__).resolve().parent.parent
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CASES = [
    {"from": "novel", "pre": "gpt-2", "vocabulary": 2000, "least": 2, "special": ["<|endoftext|>"]},
    {"from": "corpus", "pre": "gpt-2", "vocabulary": 3000, "least": 2, "special": []},
    {"from": "corpus", "pre": "qwen2", "vocabulary": 900, "least": 1, "special": ["<pad>", "<|im_end|>", "he"]},
    {"from": "letters", "pre": "gpt-2", "vocabulary": 1000, "least": 1, "special": []},
]


def letters():
    """Words of two letters, 1 to 40 long: pieces arise in more than one way."""
    x, words = 1, []
    for _ in range(400):
        word = ""
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        for _ in range(1 + (x >> 16) % 40):
            x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
            word += "ab"[(x >> 20) % 5 == 0]
        words.append(word)
    return [" ".join(words)]


def texts(name):
    if name == "novel":
        return [(ROOT / "examples" / "persuasion.txt").read_bytes().decode("utf-8")]
    if name == "corpus":
        return [data.decode("utf-8", errors="replace") for data in hard_strings.corpus()]
    return letters()


def train(case, documents):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if case["pre"] == "qwen2":
        t.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])
    t.train_from_iterator(documents, trainers.BpeTrainer(
        vocab_size=case["vocabulary"], min_frequency=case["least"], special_tokens=case["special"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))
    return json.loads(t.to_str())["model"]


def merges(model):
    return [" ".join(pair) for pair in model["merges"]]


def random_text(r):
    some = r.sample("ab-=. \n\té中", r.randint(2, 6))
    weights = [r.random() ** 2 + 0.01 for _ in some]
    return "".join(r.choices(some, weights, k=r.randint(20, 3000)))


def random_pieces(r, text):
    """Parts of words: special tokens that merges may make too."""
    words = [w for w in text.split() if len(w) > 2]
    starts = [(w, r.randrange(len(w) - 1)) for w in r.choices(words, k=r.randint(0, 6))] if words else []
    return sorted({w[i : i + r.randint(2, 8)] for w, i in starts})


def fuzz(keyhole, count):
    for seed in range(count):
        r = random.Random(seed)
        text = random_text(r)
        case = {"pre": r.choice(["gpt-2", "qwen2"]), "vocabulary": r.randint(264, 700), "least": r.choice([1, 2, 5]),
                "special": ["<s>", *random_pieces(r, text)]}
        want = train(case, [text])
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "text"
            path.write_bytes(text.encode("utf-8"))
            special = [f"--special={one}" for one in case["special"]]
            subprocess.run([keyhole, "tokenizer", "train", "-q", "-o", folder, "--vocab", str(case["vocabulary"]), "--pre",
                            case["pre"], "--min-frequency", str(case["least"]), *special, path], check=True,
                           stdout=subprocess.DEVNULL)
            data = (pathlib.Path(folder) / "tokenizer.json").read_text(encoding="utf-8")
            Tokenizer.from_str(data)
            got = json.loads(data)["model"]
        same = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in got["merges"]] == [tuple(m) for m in want["merges"]]
        if not same or got["vocab"] != want["vocab"]:
            raise SystemExit(f"seed {seed} differs: {case}")
        assert len(want["merges"]) == len({"".join(m) for m in want["merges"]}), f"seed {seed}: a piece is made twice"
    print(f"{count} random texts: the same")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuzz", nargs=2, metavar=("KEYHOLE", "N"))
    args = parser.parse_args()
    if args.fuzz:
        return fuzz(args.fuzz[0], int(args.fuzz[1]))
    with open(ROOT / "tests" / "golden" / "bpe.jsonl", "w", encoding="utf-8", newline="\n") as out:
        for case in CASES:
            model = train(case, texts(case["from"]))
            case = {**case, "tokens": len(model["vocab"]), "merges": merges(model)}
            out.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")
    return None


if __name__ == "__main__":
    main()

"""Make tests/golden/tokenizers: tiny tokenizer.json files and what `tokenizers` makes of the hard strings.

The tokenizers that are there are kept, because trainers decide ties by chance; --train makes them anew. For every string of tests/golden/tokens/corpus.jsonl up to COUNT: the ids with markers and without, and the text
that the ids give back. They are kept as hashes, 12 bytes a string (format: tests/golden/README.md); with --show LINE
the script prints them in full. With --minilm FILE it makes the hashes for that tokenizer.json too, which is not
committed.

    golden_tokenizers.py [--train] [--minilm FILE] [--show NAME LINE]
"""

import argparse
import json
import pathlib
import struct

from tokenizers import Tokenizer

import hard_strings
import tokenizer_zoo

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "tokenizers"
COUNT = 900
PAIRS = [("Where is the keyhole?", "The keyhole is in the door."), ("", "a"), ("Hello, world!", ""), ("x y", "z")]


def fnv(data):
    h = 0x811C9DC5
    for byte in data:
        h = (h ^ byte) * 0x01000193 & 0xFFFFFFFF
    return h


def answers(t, text):
    t.encode_special_tokens = True
    plain = t.encode(text, add_special_tokens=False).ids
    t.encode_special_tokens = False
    special = t.encode(text, add_special_tokens=False).ids
    # an empty list makes BPEDecoder fall over
    return plain, special, t.decode(special, skip_special_tokens=True) if special else ""


def hashes(t, corpus):
    out = bytearray(b"KHTOKEN1" + struct.pack("<I", len(corpus)))
    for data in corpus:
        plain, special, text = answers(t, data.decode("utf-8", errors="replace"))
        for ids in (plain, special):
            out += struct.pack("<I", fnv(struct.pack(f"<{len(ids)}i", *ids)))
        out += struct.pack("<I", fnv(text.encode("utf-8")))
    return bytes(out)


def pairs(t):
    made = []
    for a, b in PAIRS:
        for edges in (False, True):
            e = t.encode(a, b, add_special_tokens=edges)
            made.append({"a": a, "b": b, "edges": edges, "one": t.encode(a, add_special_tokens=edges).ids, "ids": e.ids,
                         "types": e.type_ids})
    return made


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--train", action="store_true")
    args.add_argument("--minilm")
    args.add_argument("--show", nargs=2)
    args = args.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    corpus = hard_strings.corpus()[:COUNT]
    if args.show:
        name, line = args.show
        text = corpus[int(line) - 1].decode("utf-8", errors="replace")
        path = args.minilm if name == "minilm" else str(OUT / f"{name}.json")
        t = Tokenizer.from_file(path)
        t.no_truncation(), t.no_padding()
        plain, special, back = answers(t, text)
        print(repr(text), plain, special, repr(back), [t.id_to_token(i) for i in special], sep="\n")
        return
    together = {}
    for name, make in tokenizer_zoo.ALL.items():
        if args.train or not (OUT / f"{name}.json").exists():
            write(OUT / f"{name}.json", json.loads(make().to_str()))
        t = Tokenizer.from_file(str(OUT / f"{name}.json"))
        (OUT / f"{name}.bin").write_bytes(hashes(t, corpus))
        together[name] = pairs(t)
        print(f"{name:10} {t.get_vocab_size():5} pieces, {(OUT / f'{name}.json').stat().st_size} bytes")
    if args.minilm:
        t = Tokenizer.from_file(args.minilm)
        t.no_truncation(), t.no_padding()
        (OUT / "minilm.bin").write_bytes(hashes(t, corpus))
        together["minilm"] = pairs(t)
    write(OUT / "pairs.json", together)


if __name__ == "__main__":
    main()

"""Make tests/golden/tokens: hard strings and their ids, for both real models and for tiny vocabularies of each kind.

The tiny vocabularies are trained here and committed as GGUF files without tensors; those of the real models are read
from the model files. Ids come from Hugging Face `tokenizers` (byte-level BPE) and `sentencepiece`.
File format: tests/golden/README.md.

    golden_tokens.py [--models DIR]
"""

import argparse
import json
import os
import pathlib

from gguf import GGUFReader, GGUFWriter, TokenType

import golden_logits
import hard_strings
import tiny_vocab

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "tokens"
BPE_SIZE, SPM_SIZE = 1500, 900


def from_file(path):
    """The reference tokenizer of a model file, from that file's own vocabulary."""
    fields = GGUFReader(path).fields

    def get(name, default=None):
        return fields[name].contents() if name in fields else default

    tokens = get("tokenizer.ggml.tokens")
    types = [TokenType(t) for t in get("tokenizer.ggml.token_type")]
    if get("tokenizer.ggml.model") == "gpt2":
        return tiny_vocab.Bpe(get("tokenizer.ggml.pre"), tokens, types, get("tokenizer.ggml.merges"))
    return tiny_vocab.Spm(tokens, types, get("tokenizer.ggml.scores"), get("tokenizer.ggml.add_space_prefix", True))


def check_passage(name, vocab):
    """The ids of the logits golden, which transformers' own GGUF tokenizer made, come out here too."""
    data = (hard_strings.GOLDEN / "logits" / f"{name}.bin").read_bytes()
    ids = memoryview(data)[60:60 + 4 * golden_logits.TOKENS].cast("i").tolist()
    text = (hard_strings.GOLDEN / "logits" / f"{name}.txt").read_text(encoding="utf-8")
    assert golden_logits.BOS[name] + vocab.encode(text, False) == ids, name


def compact(record):
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


def corpus_line(data):
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return compact({"hex": data.hex()})
    return compact({"hex": data.hex()} if "\0" in text else {"text": text})


def write_ids(name, vocab, corpus):
    with open(OUT / f"{name}.jsonl", "w", encoding="utf-8", newline="\n") as file:
        for data in corpus:
            text = data.decode("utf-8", errors="replace")
            record = {"ids": vocab.encode(text, False)}
            special = vocab.encode(text, True)
            if special != record["ids"]:
                record["special"] = special
            file.write(compact(record))
    print(f"{name:10} {len(vocab.tokens):6} tokens, {(OUT / f'{name}.jsonl').stat().st_size} bytes")


def write_vocabulary(name, vocab):
    writer = GGUFWriter(OUT / f"{name}.gguf", "llama")
    writer.add_name(f"tiny vocabulary {name}")
    vocab.write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--models", default=os.environ.get("KEYHOLE_MODELS", "~/.cache/keyhole/models"))
    folder = pathlib.Path(args.parse_args().models).expanduser()
    OUT.mkdir(parents=True, exist_ok=True)
    corpus = hard_strings.corpus()
    (OUT / "corpus.jsonl").write_bytes("".join(map(corpus_line, corpus)).encode("utf-8"))
    for name, file in golden_logits.MODELS.items():
        vocab = from_file(folder / file)
        check_passage(name, vocab)
        write_ids(name, vocab, corpus)
    for name in tiny_vocab.PRE:
        vocab = tiny_vocab.train_bpe(name, BPE_SIZE)
        write_vocabulary(name, vocab)
        write_ids(name, vocab, corpus)
    vocab = tiny_vocab.train_spm(SPM_SIZE, True, hard_strings.training_text())
    write_vocabulary("spm", vocab)
    write_ids("spm", vocab, corpus)


if __name__ == "__main__":
    main()

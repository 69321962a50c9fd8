"""Tiny tokenizer.json files of every kind that model folders carry, with the other files that speak of tokens.

Each maker returns a Tokens: the text of tokenizer.json, the fields of tokenizer_config.json, and the ids of the marks.
Vocabularies know printable ASCII only, so that a model's embedding stays small. Unigram and WordPiece pieces are
counted here rather than trained: a trainer's last bits depend on its threads.
"""

import collections
import dataclasses
import json
import math
import re

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

import hard_strings
import tiny_vocab

CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
          " + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


@dataclasses.dataclass
class Tokens:
    json: str     # tokenizer.json
    config: dict  # tokenizer_config.json
    size: int     # ids that mean something
    marks: dict   # role ("bos") -> id


def corpus():
    """English and code, ASCII only."""
    return ["".join(c for c in text if c == "\n" or " " <= c <= "~") for text in hard_strings.training_text()]


def finish(tokenizer, config, marks):
    text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    ids = {role: tokenizer.token_to_id(token) for role, token in marks.items()}
    assert None not in ids.values(), ids
    config = {**config, **{f"{role}_token": token for role, token in marks.items()},
              "clean_up_tokenization_spaces": False, "model_max_length": 1024}
    return Tokens(text, config, tokenizer.get_vocab_size(), ids)


def bpe(size, pre, marks, first=(), last=(), edges="", config=None):
    """Byte-level BPE; `first` and `last` are control tokens at both ends of the vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(
        "".join(map(chr, range(32, 127))) + "\n")[0][0])
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = tiny_vocab.pre_tokenizer(pre)
    trained.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size - len(first) - len(last), min_frequency=1, show_progress=False, initial_alphabet=alphabet))
    model = json.loads(trained.to_str())["model"]
    learned = list(first) + sorted(model["vocab"], key=model["vocab"].get) + list(last)
    merges = [tuple(m) for m in model["merges"]]
    hf = Tokenizer(models.BPE({t: i for i, t in enumerate(learned)}, merges, ignore_merges=pre == "llama-bpe"))
    hf.pre_tokenizer = tiny_vocab.pre_tokenizer(pre)
    hf.decoder = decoders.ByteLevel()
    hf.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in [*first, *last]])
    assert hf.get_vocab_size() == size, hf.get_vocab_size()
    ids = {t: hf.token_to_id(t) for t in marks.values()}
    if edges == "bos":
        bos = marks["bos"]
        hf.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1",
                                          special_tokens=[(bos, ids[bos])])])
    elif edges == "roberta":
        hf.post_processor = processors.RobertaProcessing(
            (marks["sep"], ids[marks["sep"]]), (marks["cls"], ids[marks["cls"]]), trim_offsets=True,
            add_prefix_space=False)
    else:
        hf.post_processor = processors.ByteLevel(trim_offsets=False)
    return finish(hf, config or {"tokenizer_class": "PreTrainedTokenizerFast"}, marks)


def llama(size=140):
    marks = {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>"}
    return bpe(size, "llama-bpe", marks, last=marks.values(), edges="bos")


def smollm(size=140):
    last = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return bpe(size, "smollm", {"bos": last[1], "eos": last[2], "unk": last[0]}, first=last,
               config={"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "chat_template": CHATML})


def qwen(size=140):
    last = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return bpe(size, "qwen2", {"eos": last[2], "pad": last[0]}, last=last,
               config={"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "chat_template": CHATML})


def gpt2(size=140):
    mark = "<|endoftext|>"
    return bpe(size, "gpt2", {"bos": mark, "eos": mark, "unk": mark}, last=[mark],
               config={"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False})


def neox(size=140):
    mark = "<|endoftext|>"
    return bpe(size, "gpt2", {"bos": mark, "eos": mark, "unk": mark}, first=[mark],
               config={"tokenizer_class": "GPTNeoXTokenizer", "add_prefix_space": False})


def roberta(size=140):
    marks = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    return bpe(size, "gpt2", marks, first=["<s>", "<pad>", "</s>", "<unk>"], last=["<mask>"], edges="roberta",
               config={"tokenizer_class": "RobertaTokenizer", "add_prefix_space": False})


def common(counts, size):
    """The `size` most frequent, ties by the text."""
    return [t for t, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:size]]


def word_piece(size=150):
    """As BERT's: lower case, marks at ids 0 to 4, pieces inside a word begin with ##."""
    marks = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = list(marks.values()) + [c for c in map(chr, range(33, 127)) if c == c.lower()]
    tokens += ["##" + c for c in letters]
    starts, inner = collections.Counter(), collections.Counter()
    for word in re.findall(r"[a-z]+", " ".join(corpus()).lower()):
        for n in range(2, 6):
            starts[word[:n]] += n * (len(word) >= n)
            for at in range(1, len(word) - n + 1):
                inner["##" + word[at:at + n]] += n
    tokens += common({**starts, **inner}, size - len(tokens))
    hf = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]",
                                    max_input_chars_per_word=100))
    hf.normalizer = normalizers.BertNormalizer(lowercase=True)
    hf.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    hf.decoder = decoders.WordPiece(prefix="##")
    hf.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in marks.values()])
    hf.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(m, hf.token_to_id(m)) for m in ("[CLS]", "[SEP]")])
    assert hf.get_vocab_size() == size
    return finish(hf, {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "tokenize_chinese_chars": True,
                       "strip_accents": None}, marks)


def unigram(size=150):
    """As T5's: pieces with scores, a space mark, and two sentinels at the end."""
    marks = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
    extra = ["<extra_id_1>", "<extra_id_0>"]
    counts = collections.Counter()
    for word in re.findall(r"\S+", " ".join(corpus())):
        word = "\u2581" + word
        for n in range(1, 7):
            for at in range(len(word) - n + 1):
                counts[word[at:at + n]] += n
    single = {"\u2581": counts["\u2581"], **{chr(c): counts[chr(c)] + 1 for c in range(33, 127)}}
    longer = {t: c for t, c in counts.items() if t not in single}
    chosen = list(single) + common(longer, size - 3 - len(extra) - len(single))
    total = sum(counts.values())
    scored = sorted(((t, round(math.log(counts.get(t, 1) or 1) - math.log(total), 4)) for t in chosen),
                    key=lambda item: (-item[1], item[0]))
    vocab = [(t, 0.0) for t in marks.values()] + scored + [(t, 0.0) for t in extra]
    hf = Tokenizer(models.Unigram(vocab, unk_id=2, byte_fallback=False))
    hf.normalizer = normalizers.Sequence([normalizers.Strip(left=False, right=True),
                                          normalizers.Replace(Regex(" {2,}"), "\u2581")])
    hf.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    hf.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    hf.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in [*marks.values(), *extra]])
    hf.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>",
                                                      special_tokens=[("</s>", 1)])
    assert hf.get_vocab_size() == size
    return finish(hf, {"tokenizer_class": "T5Tokenizer", "extra_ids": len(extra)}, marks)

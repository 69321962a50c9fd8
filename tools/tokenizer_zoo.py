"""Tiny tokenizers in Hugging Face's format, trained here: together they use every component that keyhole reads.

Each function returns a `tokenizers.Tokenizer`; ALL maps the name of the golden to it. They are shaped after the
tokenizers that models have (the comment says whose), with vocabularies of a few hundred pieces.
"""

import io
import pathlib
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as sp
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import hard_strings

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|keyhole|>"]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
# replacements of the small character map: from, to
RULES = [("\t", " "), ("\n", " "), ("\r", " "), ("\u3000", " "), ("\u00a0", " "), ("\ufb01", "fi"), ("\ufb02", "fl"),
         ("\u2026", "..."), ("e\u0301", "\u00e9"), ("n\u0303", "\u00f1"), ("A\u030a", "\u00c5"), ("\u212a", "K"),
         ("\u2126", "\u03a9"), ("\u00bd", "1\u20442"), ("\u200b", ""), ("\ufeff", ""), ("\uff11", "1"), ("\uff12", "2"),
         ("\u2581", " "), ("\u00b5", "\u03bc"), ("\u3001", ","), ("\uff01", "!"), ("\u0001", ""), ("\u00ad", "")]
RULES += [(c, " ") for c in "\u000b\u000c\u0085\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
          "\u2028\u2029\u202f\u205f"]


def text():
    return hard_strings.training_text()


def special(tokens, **flags):
    return [AddedToken(t, special=True, normalized=False, **flags) for t in tokens]


def train(tokenizer, trainer):
    tokenizer.train_from_iterator(text(), trainer)
    return tokenizer


def byte_trainer(size):
    return trainers.BpeTrainer(vocab_size=size, min_frequency=2, show_progress=False,
                               initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))


def gpt2():
    """GPT-2, GPT-NeoX."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    train(t, byte_trainer(480))
    t.decoder, t.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    t.add_special_tokens(special(SPECIAL[:1]))
    t.add_tokens([AddedToken("<tool>", normalized=True), AddedToken("  ", normalized=False)])
    return t


def llama3():
    """Llama 3: words that are pieces are taken whole; bos by a template behind ByteLevel."""
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    train(t, byte_trainer(480))
    t.add_special_tokens(special(SPECIAL))
    bos = t.token_to_id("<|im_start|>")
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|im_start|> $A", pair="<|im_start|> $A <|im_start|>:1 $B:1",
                                      special_tokens=[("<|im_start|>", bos)])])
    t.decoder = decoders.ByteLevel()
    return t


def qwen2():
    """Qwen 2 and 3: NFC."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    train(t, byte_trainer(400))
    t.add_special_tokens(special(SPECIAL[:3]))
    t.add_tokens([AddedToken("<tool>", normalized=False, single_word=True)])
    t.decoder, t.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    return t


def roberta():
    """RoBERTa: a blank in front, <mask> takes the white space before it."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    train(t, byte_trainer(360))
    t.add_special_tokens(special(["<s>", "</s>", "<pad>", "<unk>"]))
    t.add_special_tokens(special(["<mask>", "<bos>"], lstrip=True) + special(["<eos>"], rstrip=True, lstrip=True))
    t.post_processor = processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")))
    t.decoder = decoders.ByteLevel()
    return t


def spm_bpe(size, prefix):
    """A SentencePiece BPE model: pieces and the merges that make them, as its converters list them."""
    model = io.BytesIO()
    lines = [line for part in text() for line in part.splitlines() if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=size, byte_fallback=True,
        character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=prefix, split_digits=True, allow_whitespace_only_pieces=True, num_threads=1,
        pad_id=3, minloglevel=2)
    proto = sp.ModelProto.FromString(model.getvalue())
    vocab = {p.piece: i for i, p in enumerate(proto.pieces)}
    merges = []
    for piece, score in ((p.piece, p.score) for p in proto.pieces if p.type == 1):
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in vocab and piece[i:] in vocab]
        merges += [(-score, vocab[a], vocab[b], (a, b)) for a, b in splits]
    return vocab, [m[3] for m in sorted(merges)]


def llama2():
    """Llama 2, Mistral: no pre-tokenizer, the text is one word."""
    vocab, merges = spm_bpe(620, True)
    t = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.add_special_tokens(special(["<unk>", "<s>", "</s>"]))
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1",
                                                     special_tokens=[("<s>", vocab["<s>"])])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(content=" ", left=1)])
    return t


def gemma():
    """Gemma: no blank in front, runs of line ends are added tokens."""
    vocab, merges = spm_bpe(560, False)
    t = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Replace(" ", "\u2581")
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.add_special_tokens(special(["<bos>", "<eos>", "<unk>", "<start_of_turn>"]))
    t.add_tokens([AddedToken("\n" * n, normalized=False) for n in (1, 2, 3)] +
                 [AddedToken("\u2581" * n, normalized=False) for n in (2, 4)])
    t.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos>:1 $B:1",
                                                     special_tokens=[("<bos>", t.token_to_id("<bos>"))])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return t


def unigram(size, **options):
    model = io.BytesIO()
    lines = [line for part in text() for line in part.splitlines() if line.strip()]
    with tempfile.TemporaryDirectory() as folder:
        rules = pathlib.Path(folder) / "rules.tsv"
        rules.write_text("".join("%s\t%s\n" % (" ".join("%X" % ord(c) for c in a), " ".join("%X" % ord(c) for c in b))
                                 for a, b in RULES))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, model_type="unigram", vocab_size=size,
            normalization_rule_tsv=str(rules), num_threads=1, minloglevel=2, hard_vocab_limit=False, **options)
    proto = sp.ModelProto.FromString(model.getvalue())
    unk = next(i for i, p in enumerate(proto.pieces) if p.type == 2)
    return [(p.piece, p.score) for p in proto.pieces], unk, proto.normalizer_spec.precompiled_charsmap


def t5():
    """T5: a character map, unigram, </s> behind."""
    pieces, unk, charsmap = unigram(420, character_coverage=0.98, bos_id=-1, pad_id=0, eos_id=1, unk_id=2)
    t = Tokenizer(models.Unigram(pieces, unk, False))
    t.normalizer = normalizers.Precompiled(charsmap)
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
                                               pre_tokenizers.Metaspace(prepend_scheme="always")])
    t.add_special_tokens(special(["<pad>", "</s>", "<unk>"]) + special(["<extra_id_0>"]))
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>",
                                                     special_tokens=[("</s>", t.token_to_id("</s>"))])
    t.decoder = decoders.Metaspace(prepend_scheme="always")
    return t


def mt5():
    """T5 and mT5 as they are converted today: blanks at the end and in runs are gone."""
    pieces, unk, charsmap = unigram(380, character_coverage=0.98, bos_id=-1, pad_id=0, eos_id=1, unk_id=2)
    t = Tokenizer(models.Unigram(pieces, unk, False))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Strip(left=False, right=True),
                                         normalizers.Replace(Regex(" {2,}"), "\u2581")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    t.add_special_tokens(special(["<pad>", "</s>", "<unk>"]))
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>",
                                                     special_tokens=[("</s>", t.token_to_id("</s>"))])
    t.decoder = decoders.Metaspace(prepend_scheme="always")
    return t


def xlmr():
    """XLM-RoBERTa: byte tokens for what is no piece, runs of blanks are one."""
    pieces, unk, charsmap = unigram(640, character_coverage=0.98, byte_fallback=True, bos_id=0, pad_id=1, eos_id=2,
                                    unk_id=3)
    t = Tokenizer(models.Unigram(pieces, unk, True))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    t.add_special_tokens(special(["<s>", "<pad>", "</s>", "<unk>"]) + special(["<mask>"], lstrip=True))
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", t.token_to_id("<s>")), ("</s>", t.token_to_id("</s>"))])
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    return t


def wordpiece(size, prefix="##"):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.normalizer = normalizers.BertNormalizer(lowercase=size < 600)
    train(t, trainers.WordPieceTrainer(vocab_size=size, min_frequency=2, show_progress=False, limit_alphabet=220,
                                       special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                                       continuing_subword_prefix=prefix))
    return t


def bert():
    """BERT uncased, MiniLM."""
    t = wordpiece(560)
    t.add_special_tokens(special(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", t.token_to_id("[CLS]")), ("[SEP]", t.token_to_id("[SEP]"))])
    t.decoder = decoders.WordPiece()
    return t


def bert_cased():
    """BERT cased, with a short limit for words and an added token that is normalised."""
    t = wordpiece(620)
    vocab = t.get_vocab()
    t.model = models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=12)
    t.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=True, handle_chinese_chars=False)
    t.add_special_tokens(special(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.add_tokens([AddedToken("Hello", normalized=True, single_word=True), AddedToken("\u00e9", normalized=True)])
    t.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    t.decoder = decoders.WordPiece(cleanup=False)
    return t


def clip():
    """CLIP: byte letters, and a mark at the end of words."""
    t = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix=""))
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "),
                                         normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    train(t, trainers.BpeTrainer(vocab_size=560, min_frequency=2, show_progress=False, end_of_word_suffix="</w>",
                                 special_tokens=SPECIAL[:2], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    t.add_special_tokens(special(SPECIAL[:2]))
    t.post_processor = processors.RobertaProcessing(("<|endoftext|>", t.token_to_id("<|endoftext|>")),
                                                    ("<|im_start|>", t.token_to_id("<|im_start|>")),
                                                    trim_offsets=False, add_prefix_space=False)
    t.decoder = decoders.Sequence([decoders.Replace("</w>", " "), decoders.ByteLevel()])
    return t


def gpt1():
    """OpenAI GPT: BPE over characters, unknown ones not fused, </w> ends words."""
    t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(), normalizers.NFD(),
                                         normalizers.StripAccents(), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    train(t, trainers.BpeTrainer(vocab_size=420, min_frequency=2, show_progress=False, end_of_word_suffix="</w>",
                                 limit_alphabet=120, special_tokens=["<unk>"]))
    t.decoder = decoders.BPEDecoder("</w>")
    return t


def prefixed():
    """BPE with ## inside words, neighbours that are unknown fused; no decoder."""
    t = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True, continuing_subword_prefix="##"))
    t.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Strip(left=True, right=False)])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits(False)])
    train(t, trainers.BpeTrainer(vocab_size=420, min_frequency=2, show_progress=False, limit_alphabet=100,
                                 continuing_subword_prefix="##", special_tokens=["[UNK]", "[SEP]"]))
    t.add_tokens([AddedToken("quick", normalized=True, single_word=True, lstrip=True)])
    return t


def words():
    """Whole words, the other normalizers and every behaviour of a split."""
    t = Tokenizer(models.WordLevel(unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.Strip(left=False, right=True),
                                         normalizers.Replace("\u2019", "'")])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("-", "merged_with_next"), pre_tokenizers.Split(Regex(r"[,;:]"), "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"\s"), "removed"), pre_tokenizers.Split(Regex(r"\h{2,}+|x*"), "isolated"),
        pre_tokenizers.Split(Regex(r"[[:upper:]]\w?"), "contiguous", invert=True),
        pre_tokenizers.CharDelimiterSplit("_"), pre_tokenizers.Digits(True), pre_tokenizers.Punctuation("isolated")])
    train(t, trainers.WordLevelTrainer(vocab_size=400, show_progress=False, special_tokens=["<unk>"]))
    t.decoder = decoders.Sequence([decoders.Replace(Regex("[aeiou]+"), "_"), decoders.Strip(content="t", left=0, right=1),
                                   decoders.Metaspace(prepend_scheme="never")])
    return t


ALL = {f.__name__: f for f in (gpt2, llama3, qwen2, roberta, llama2, gemma, t5, mt5, xlmr, bert, bert_cased, clip, gpt1,
                               prefixed, words)}

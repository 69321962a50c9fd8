"""Tiny vocabularies: trained here, written as GGUF, encoded by independent implementations.

Byte-level BPE uses Hugging Face `tokenizers`; its own Split, Digits and ByteLevel classes are put together as
llama.cpp's pre-tokenizer names define them. The SentencePiece-style vocabulary uses `sentencepiece`.
"""

import io
import json

import sentencepiece
from gguf import TokenType
from sentencepiece import sentencepiece_model_pb2 as sp
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

import hard_strings

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# file name of the golden -> (tokenizer.ggml.pre, the patterns, one after the other)
PRE = {
    "gpt2": ("gpt-2", [GPT2]),
    "smollm": ("smollm", [r"\p{N}", GPT2]),
    "llama-bpe": ("llama-bpe", [LLAMA3 % r"\p{N}{1,3}"]),
    "qwen2": ("qwen2", [LLAMA3 % r"\p{N}"]),
    "default": ("default", [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
}
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|keyhole|>"]
DEFINED = ["<tool>"]


def pre_tokenizer(name):
    if name == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    splits = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in PRE[name][1]]
    return pre_tokenizers.Sequence(splits + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


class Bpe:
    """tokens, types, merges and an encoder for byte-level BPE."""

    def __init__(self, pre, tokens, types, merges):
        self.pre, self.tokens, self.types, self.merges = pre, tokens, types, merges
        vocab = {t: i for i, t in enumerate(tokens)}
        pairs = [tuple(m.split(" ")) for m in merges]
        # llama-bpe: a piece that is itself a token is taken whole, merges or not
        self.hf = Tokenizer(models.BPE(vocab, pairs, ignore_merges=pre == "llama-bpe"))
        self.hf.pre_tokenizer = pre_tokenizer(pre)
        control = [t for t, k in zip(tokens, types) if k == TokenType.CONTROL]
        defined = [t for t, k in zip(tokens, types) if k == TokenType.USER_DEFINED]
        self.hf.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
        self.hf.add_tokens([AddedToken(t, normalized=False, special=False) for t in defined])
        assert self.hf.get_vocab_size() == len(tokens)

    def encode(self, text, special):
        """ids without BOS; with special=False the text of control tokens is plain text."""
        self.hf.encode_special_tokens = not special
        return self.hf.encode(text, add_special_tokens=False).ids

    def write(self, writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(PRE[self.pre][0])
        writer.add_token_list(self.tokens)
        writer.add_token_types([int(t) for t in self.types])
        writer.add_token_merges(self.merges)
        writer.add_bos_token_id(self.tokens.index("<|im_start|>"))
        writer.add_eos_token_id(self.tokens.index("<|im_end|>"))
        writer.add_add_bos_token(False)


def train_bpe(pre, size):
    """A vocabulary of `size` tokens; llama-bpe gets one token that no merge makes."""
    extra = ["\u0120keyholes"] if pre == "llama-bpe" else []
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizer(pre)
    trained.train_from_iterator(hard_strings.training_text(), trainers.BpeTrainer(
        vocab_size=size - len(CONTROL) - len(DEFINED) - len(extra), min_frequency=1, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    model = json.loads(trained.to_str())["model"]
    learned = sorted(model["vocab"], key=model["vocab"].get)
    extra = [t for t in extra if t not in learned]
    merges = [" ".join(m) for m in model["merges"]]
    normal = learned + extra
    # control tokens first, as SmolLM2 has them; the defined one last
    tokens = CONTROL + normal + DEFINED
    types = ([TokenType.CONTROL] * len(CONTROL) + [TokenType.NORMAL] * len(normal)
             + [TokenType.USER_DEFINED] * len(DEFINED))
    return Bpe(pre, tokens, types, merges)


class Spm:
    """tokens, types, scores and an encoder for SentencePiece-style BPE with byte fallback."""

    def __init__(self, tokens, types, scores, space_prefix):
        self.tokens, self.types, self.scores, self.space_prefix = tokens, types, scores, space_prefix
        proto = sp.ModelProto()
        kinds = {TokenType.NORMAL: 1, TokenType.UNKNOWN: 2, TokenType.CONTROL: 3, TokenType.USER_DEFINED: 4,
                 TokenType.UNUSED: 5, TokenType.BYTE: 6}
        unk = next((i for i, k in enumerate(types) if k == TokenType.UNKNOWN), None)
        if unk is None:
            unk = tokens.index("<unk>")
        for i, (token, kind, score) in enumerate(zip(tokens, types, scores)):
            piece = proto.pieces.add()
            # GGUF keeps user-defined tokens as they stand in the text, SentencePiece with its space mark
            piece.piece = token.replace(" ", "\u2581") if kind == TokenType.USER_DEFINED else token
            piece.type = 2 if i == unk else kinds[TokenType(kind)]
            piece.score = score
        spec = proto.trainer_spec
        spec.model_type, spec.byte_fallback, spec.vocab_size = 2, True, len(tokens)
        spec.unk_id, spec.bos_id, spec.eos_id, spec.pad_id = unk, -1, -1, -1
        norm = proto.normalizer_spec
        norm.name, norm.add_dummy_prefix = "identity", space_prefix
        norm.remove_extra_whitespaces, norm.escape_whitespaces = False, True
        self.sp = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        matched = (TokenType.CONTROL, TokenType.UNKNOWN)
        self.control = sorted((t for t, k in zip(tokens, types) if k in matched), key=len, reverse=True)
        self.ids = {t: i for i, t in enumerate(tokens)}

    def encode(self, text, special):
        """ids without BOS. Each stretch between control tokens is encoded on its own, as llama.cpp does."""
        if not text:
            return []
        if special:
            for token in self.control:
                if token in text:
                    left, right = text.split(token, 1)
                    return self.encode(left, True) + [self.ids[token]] + self.encode(right, True)
        return self.sp.encode(text)

    def write(self, writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(self.tokens)
        writer.add_token_scores(self.scores)
        writer.add_token_types([int(t) for t in self.types])
        writer.add_bos_token_id(self.tokens.index("<s>"))
        writer.add_eos_token_id(self.tokens.index("</s>"))
        writer.add_unk_token_id(self.tokens.index("<unk>"))
        writer.add_add_space_prefix(self.space_prefix)
        writer.add_add_bos_token(True)


def train_spm(size, space_prefix, texts):
    model = io.BytesIO()
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=size, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=space_prefix,
        character_coverage=0.98, num_threads=1, minloglevel=2)
    proto = sp.ModelProto.FromString(model.getvalue())
    kinds = {1: TokenType.NORMAL, 2: TokenType.UNKNOWN, 3: TokenType.CONTROL, 4: TokenType.USER_DEFINED,
             5: TokenType.UNUSED, 6: TokenType.BYTE}
    return Spm([p.piece for p in proto.pieces], [kinds[p.type] for p in proto.pieces],
               [p.score for p in proto.pieces], space_prefix)

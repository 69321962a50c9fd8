"""Strings that tokenizers get wrong, and the text that the tiny vocabularies are trained on."""

import pathlib
import random

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"

# Specials of the tiny vocabularies come last in SPECIAL; those of the two real models come first.
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<bos>", "<eos>", "<start_of_turn>", "<s>", "</s>",
           "<|keyhole|>"]

FIXED = [
    "", " ", "  ", "   ", "a", "A", "Hello", "Hello, world!", " Hello", "Hello ", " Hello  world ",
    "The quick brown fox jumps over the lazy dog.", "keyhole", " keyhole", "a keyhole, two keyholes; KEYHOLE",
    # contractions, lower and upper case, straight and curly
    "I'm you're he's she'd we'll they've don't", "I'M YOU'RE HE'S SHE'D WE'LL THEY'VE DON'T",
    "I'm You'Re He'S", "'s't're've'm'll'd", "'S'T'RE'VE'M'LL'D", "''s ' s 's", "it\u2019s don\u2019t",
    "rock'n'roll o'clock 'tis", "x'\u017f 'lL 'rE 've1 '1s",
    # numbers
    "0", "7", "42", "123", "1234", "12345", "1234567890", "3.14159", "1,234,567.89", "-1e-10", "0xDEADBEEF",
    "2024-02-29T12:34:56Z", "192.168.0.1", "a1b2c3", "1a2b3c", "x86_64", "100%", "$9.99", "50\u20ac", "\u00bd \u00be \u00b2 \u2460 \u2167",
    "\u0661\u0662\u0663\u0664\u0665", "\u0967\u0968\u0969\u096a", "\uff11\uff12\uff13\uff14", "room101 101room 1 0 1", "12 345 6789 01234",
    # punctuation
    "...", "!!!???", "(a)[b]{c}<d>", "a-b_c.d/e\\f", "\"quoted\" 'single' `tick`", "\u00abguillemets\u00bb \u201cquotes\u201d \u2014 dash \u2026",
    "#hashtag @user user@example.com", "https://example.com/a?b=c&d=%20#e", "a+b=c; x<=y>=z; p->q; !r && s || ~t ^ u",
    "*bold* _it_ ~~no~~ **b**", "$$x^2$$ \\frac{a}{b}", "-- --- ----- ==== ____ ####", "a,b;c:d.e!f?g", "\u00bf\u00a1ol\u00e9!", "\u3002\u3001\u300c\u300d\uff01",
    "=>", " =>", "++i", "|pipe|", "a|b", "<=>", "^_^ :-) ;) <3", "\u2192 \u21d2 \u2211 \u221e \u00b1 \u00d7 \u00f7 \u00a7 \u00b6 \u2122",
    # code
    "int main(void)\n{\n    return 0;\n}\n", "def f(x):\n\treturn x**2  # square\n\n\nprint(f(3))\n",
    "for (size_t i = 0; i < n; i++) { a[i] += b[i] * 0.5f; }", "#include <stdio.h>\n\n#define MAX(a,b) ((a)>(b)?(a):(b))",
    "{\"key\": [1, 2.5, null, true], \"s\": \"a\\nb\\u00e9\"}", "SELECT * FROM t WHERE id = 1; -- comment", "<p class=\"x\">a &amp; b</p><br/>",
    "<table>\n  <tr><td>1</td></tr>\n</table>", "if(x==null){return;}else{y=x?.z??0;}", "\tif (a)\r\n\t\tb();\r\n", "camelCaseWord snake_case_word SCREAMING_CASE",
    "$ grep -rn 'foo' --include=*.c . | wc -l", "lambda x: x[::-1]", "```c\nint x;\n```\n",
    # white space
    "\n", "\n\n", "\n\n\n", "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n", "\t", "\t\t", "\t\t\t\ta", "\r", "\r\n", "\r\n\r\n", "\n\r\n\r",
    "a\nb", "a\n\nb", "a \nb", "a\n b", "a  \n  b", "a \n \n b", "a\t\tb", "a \t b", "a\t b", "a\u000bb\u000cc", "  leading", "trailing  ", "trailing\n", "trailing \n ",
    "   a   b   c   ", "a" + " " * 40 + "b", " " * 33, " " * 64 + "x", "\t" * 35, "x\n\n\n   y", "  \n  \n  z", "line one\nline two\r\nline three\rline four", "end.   \n\n\tNext",
    "a\u00a0b", "\u00a0", "\u00a0\u00a0a", "a \u00a0 b", "a\u2003b\u2009c\u200ad", "\u3000\u5168\u89d2\u3000\u7a7a\u767d", "a\u2028b\u2029c", "a\u0085b", "a\u202fb\u205fc\u1680d", "zero\u200bwidth\u200cnon\u200djoiner\ufeffbom",
    "\u2002 \u2002x", " \u3000a", "\ufeffstart", "soft\u00adhyphen",
    # languages
    "Voix ambigu\u00eb d\u2019un c\u0153ur qui au z\u00e9phyr pr\u00e9f\u00e8re les jattes de kiwis", "Zw\u00f6lf Boxk\u00e4mpfer jagen Viktor quer \u00fcber den gro\u00dfen Sylter Deich",
    "e\u0301 vs \u00e9, n\u0303 vs \u00f1, A\u030a vs \u00c5", "\u0421\u044a\u0435\u0448\u044c \u0435\u0449\u0451 \u044d\u0442\u0438\u0445 \u043c\u044f\u0433\u043a\u0438\u0445 \u0444\u0440\u0430\u043d\u0446\u0443\u0437\u0441\u043a\u0438\u0445 \u0431\u0443\u043b\u043e\u043a", "\u039e\u03b5\u03c3\u03ba\u03b5\u03c0\u03ac\u03b6\u03c9 \u03c4\u1f74\u03bd \u03c8\u03c5\u03c7\u03bf\u03c6\u03b8\u03cc\u03c1\u03b1 \u03b2\u03b4\u03b5\u03bb\u03c5\u03b3\u03bc\u03af\u03b1",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u6211\u80fd\u541e\u4e0b\u73bb\u7483\u800c\u4e0d\u4f24\u8eab\u4f53\u3002", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3002\u30ab\u30bf\u30ab\u30ca\u3068\u6f22\u5b57", "\u30a2\u30a4\u30a6\u30fc\u30f3 \uff71\uff72\uff73", "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4", "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "\u4e2d\u6587English\u6df7\u54081234\u6587\u672c", "\U00020000\U0002a6b2 \u9fff", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u0627\u0644\u0633\u0651\u064e\u0644\u0627\u0645\u064f \u0639\u064e\u0644\u064e\u064a\u0652\u0643\u064f\u0645", "\u200fRTL\u200e LTR \u202bmixed\u202c",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u05d1\u05b0\u05bc\u05e8\u05b5\u05d0\u05e9\u05b4\u05c1\u05d9\u05ea \u05d1\u05b8\u05bc\u05e8\u05b8\u05d0", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e44\u0e21\u0e48\u0e21\u0e35\u0e0a\u0e48\u0e2d\u0e07\u0e27\u0e48\u0e32\u0e07 123",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0915\u094d\u0937\u0947\u0924\u094d\u0930 \u0939\u093f\u0902\u0926\u0940 \u0967\u0968\u0969", "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0bae\u0bca\u0bb4\u0bbf", "\u12a0\u121b\u122d\u129b", "\u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8 \u10d4\u10dc\u10d0", "Ti\u1ebfng Vi\u1ec7t c\u00f3 d\u1ea5u",
    "\u0130stanbul \u0131\u015f\u0131k", "\u1e9e\u00df \ufb01\ufb02 \u01c4\u01c5\u01c6", "\u00aa\u00ba \u02b0\u02b2 \u2090\u2091", "\U00010330\U00010331 \U0001d504\U0001d505 \U0001d7d8\U0001d7d9",
    # emoji: plain, skin tone, joined, keycap, flags, variation selectors
    "\U0001f600", "\U0001f600\U0001f601\U0001f602", "hi \U0001f44b\U0001f3fd there", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f469\U0001f3ff\u200d\U0001f4bb \U0001f3f3\ufe0f\u200d\U0001f308", "1\ufe0f\u20e3 #\ufe0f\u20e3", "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea\U0001f1ef\U0001f1f5",
    "\u2764\ufe0f \u2764", "a\U0001f600b \U0001f600 c", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    # very long words and repetitions
    "a" * 300, "ab" * 200, "Donaudampfschifffahrtselektrizit\u00e4tenhauptbetriebswerkbauunterbeamtengesellschaft", "x" * 63 + "y" + "x" * 64, "=" * 100, "1" * 50, "\u00e9" * 60, "\u4e2d" * 50,
    "aaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbb", "lol" * 40 + "!" * 40, "na " * 30, "\U0001f600" * 20,
    # text of special tokens inside
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "a<|endoftext|>b", "<|endoftext|>", " <|endoftext|> ", "<|endoftext|><|endoftext|>", "<|im_start", "<|im_start|", "<|im_end|>>", "<<|im_end|>",
    "<bos>text<eos>", "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "<s>one</s>two", "<pad><unk>", "<0x41><0x0A>", "[INST] x [/INST]", "a<|keyhole|>b <|keyhole|> c", "<|keyhole|", "<|keyhole|>1<|im_end|>\n",
    "<tool>", "call <tool>x</tool> now", "  <tool>  ", "<unused0>", "<h1>T</h1>",
    # control characters and the ends of the planes
    "a\u0000b", "\u0001\u0002\u001f\u007f", "\u001b[31mred\u001b[0m", "\u0080\u009f", "\ud7ff\ue000\ufffd", "\ufdd0\uffff", "\U0010ffff", "\ufffd\ufffd", "\ue000private", "o\u0308\u0323\u0301",
    "a\u2581b", "\u0120a \u010ab", "Ita\u0302liano", "\u2488\u2489 \u3220 \u32c0", "\u0e50\u0e51\u0e52 \u0be6", "\u2163\u2164x", "\u00b5\u03bc \u2126\u03a9 \u212a\u004b",
]

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "       ", "\n\n\t\r ", ".,;:!?'\"()[]{}<>|$+=^~-_*/\\@#%&`",
    "\u00e9\u00e8\u00fc\u00f6\u00df\u00f1\u00e7\u0153", "\u0430\u0431\u0432\u0433\u0434\u0435\u0436\u0437", "\u4e00\u4e8c\u4e09\u6c34\u706b\u6728", "\u0627\u0628\u062a\u062b\u064e\u064f", "\u05d0\u05d1\u05d2\u05b8\u05b4", "\u0915\u0916\u0917\u093e\u093f\u094d", "\u0e01\u0e02\u0e04\u0e48\u0e32",
    "\U0001f600\U0001f601\u200d\ufe0f\U0001f3fd", "\u00a0\u2003\u3000\u200b", "\u0661\u0967\u00bd\u2167\uff15",
]


def mixed(count, seed):
    """Random strings that jump between alphabets: every boundary of the patterns occurs."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(2, 9)):
            alphabet = rng.choice(ALPHABETS)
            parts.append("".join(rng.choice(alphabet) for _ in range(rng.randint(1, 4))))
            if rng.random() < 0.15:
                parts.append(rng.choice(["'s", "'T", "'re", "'LL", "n't", " the", "\n\n", "  "]))
        out.append("".join(parts))
    return out


def random_bytes(count, seed):
    """Half uniform bytes, half valid text with bytes cut out, doubled or overwritten."""
    rng = random.Random(seed)
    out = []
    for i in range(count):
        if i % 2 == 0:
            out.append(bytes(rng.randrange(256) for _ in range(rng.randint(1, 16))))
            continue
        text = bytearray("".join(rng.choice(rng.choice(ALPHABETS)) for _ in range(rng.randint(2, 7))).encode())
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            what = rng.randrange(3)
            if what == 0 and len(text) > 1:
                del text[at]
            elif what == 1:
                text.insert(at, text[at])
            else:
                text[at] = rng.choice([0x80, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xF5, 0xFF, 0x20, 0x41])
        out.append(bytes(text))
    return out


def corpus():
    """All strings of tests/golden/tokens, as bytes: 300 mixed, 1000 random, the fixed ones first."""
    return [s.encode("utf-8") for s in FIXED + mixed(300, 5)] + random_bytes(1000, 6)


def training_text():
    """Lines to train the tiny vocabularies on: the committed passage of a novel, the strings, more mixtures."""
    novel = (GOLDEN / "logits" / "smollm2.txt").read_text(encoding="utf-8")
    plain = [s for s in FIXED if not any(t in s for t in SPECIAL) and "\0" not in s]
    return [novel, novel.upper()[:1500]] + plain * 3 + mixed(1500, 7)

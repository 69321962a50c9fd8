"""Make tests/golden/answers.json: pairs of texts and what SQuAD's rules say of them.

The rules (Rajpurkar et al., 2016), in the language that they were first written in: small letters, no ASCII punctuation,
no words a, an, the between word boundaries, single blanks; exact match, and F1 over words with repetitions; the best
over all right answers.
"""

import collections
import json
import pathlib
import re
import string

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "answers.json"
CASES = [
    ("Paris", ["Paris"]), ("paris.", ["Paris"]), ("the Paris", ["Paris"]), ("Paris, France", ["Paris"]),
    ("", [""]), ("", ["a"]), ("the", ["a"]), ("the", ["x"]), ("x", ["the"]), ("An apple", ["apple"]),
    ("a a b", ["a b"]), ("b b c", ["b c c"]), ("red red red", ["red"]), ("theatre", ["the atre"]),
    ("the-end", ["end"]), ("the\u2013end", ["end"]), ("the\u2019s", ["s"]), ("it's the cat's", ["its cats"]),
    ("U.S.A.", ["USA"]), ("3.5", ["35"]), ("1,000", ["1000"]), ("A.B", ["ab"]), ("a.b", ["ab", "b"]),
    ("\u00c9TUDE", ["\u00e9tude"]), ("stra\u00dfe", ["STRASSE"]), ("\u0391\u03b8\u03ae\u03bd\u03b1", ["\u0391\u0398\u0389\u039d\u0391"]),
    ("one\u00a0two", ["one two"]), ("one\u2003two", ["one two"]), ("one\ttwo\nthree", ["one  two three"]),
    ("\u6771\u4eac", ["\u6771\u4eac"]), ("\u6771\u4eac the", ["\u6771\u4eac"]), ("a\u0301", ["\u00e1"]),
    ("the_end", ["theend"]), ("an_apple", ["anapple"]), ("$5 (five)", ["5 five", "five"]),
    ("in the year 1871 by Anna Reed", ["Anna Reed", "1871"]), ("the the the", ["", "b"]), ("\u201cquoted\u201d", ["quoted"]),
    ("no", ["yes", "maybe", "no way"]), ("\u00bd cup", ["cup"]), ("the \u00bd", ["\u00bd"]), ("a\u00b2", ["\u00b2"]),
]


def normalise(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1(a, b):
    a, b = normalise(a).split(), normalise(b).split()
    if not a or not b:
        return float(a == b)
    common = sum((collections.Counter(a) & collections.Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


rows = [{"said": s, "right": r, "exact": max(float(normalise(s) == normalise(x)) for x in r),
         "f1": max(f1(s, x) for x in r)} for s, r in CASES]
OUT.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows) + "\n]\n")
print(f"{OUT}: {len(rows)} cases")

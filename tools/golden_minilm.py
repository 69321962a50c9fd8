"""Make tests/golden/embed/minilm.{jsonl,bin}: 200 texts and their embeddings by all-MiniLM-L6-v2.

The model is the folder that scripts/models --all obtains; transformers runs it in float32, each text alone, cut to 256
tokens as the folder's sentence_bert_config.json says, mean of the last states, length 1: what sentence-transformers
does. File format: tests/golden/README.md.

    golden_minilm.py [--models DIR]
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import struct

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertModel

import hard_strings

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "golden" / "embed"
LONGEST = 256

EMPTY = ["", " ", "\n\t\n", ".", "?!", "a", "\u200b", "\U0001f642", "0", "..."]
ENGLISH = [
    "The cat sat on the mat.", "A cat was sitting on a rug.", "The stock market fell sharply on Monday.",
    "Shares dropped a lot at the start of the week.", "How do I reset my password?",
    "I forgot my login details and cannot get in.", "The recipe needs two eggs and a cup of flour.",
    "Preheat the oven to 180 degrees.", "Water boils at one hundred degrees Celsius at sea level.",
    "Photosynthesis turns light into chemical energy.", "He did not say that she was wrong.",
    "She did not say that he was wrong.", "The bank raised its interest rates.", "We had a picnic on the bank of the river.",
    "Nobody knows the trouble I have seen.", "The quick brown fox jumps over the lazy dog.",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG", "Is it going to rain tomorrow?", "It is raining cats and dogs!",
    "The train to Bath leaves at 9:45 from platform 3.", "My flight was cancelled because of fog.",
    "The patient was given 50 mg of the drug twice a day.", "Side effects include headache and nausea.",
    "The court dismissed the appeal with costs.", "All rights reserved.", "Terms and conditions apply.",
    "for i in range(10): print(i)", "SELECT name FROM users WHERE age > 30;", "git commit -m 'fix typo'",
    "E = mc^2", "Let f be a continuous function on a compact set.", "The proof is left to the reader.",
    "I love this film, I have watched it ten times.", "Worst film ever; I left after twenty minutes.",
    "The hotel was clean, but the staff were rude.", "antidisestablishmentarianism",
    "Pneumonoultramicroscopicsilicovolcanoconiosis is a long word.", "supercalifragilisticexpialidocious " * 3,
    "buffalo buffalo buffalo buffalo buffalo buffalo buffalo buffalo", "no no no no no no no no no no no no",
    "He said: \u201cIt\u2019s over\u201d \u2014 and left.", "na\u00efve caf\u00e9 r\u00e9sum\u00e9 co\u00f6perate fa\u00e7ade",
    "Zo\u00eb and Ren\u00e9e met in Malm\u00f6.", "x" * 99, "x" * 120, "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "https://example.com/path?query=value#fragment", "user@example.com wrote on 2024-02-29 at 12:34",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10", "The answer is 42.", "@@@ ### $$$ %%% ^^^ &&& ***",
]
SCRIPTS = [
    "Der Zug f\u00e4hrt um neun Uhr ab.", "Le chat dort sur le canap\u00e9.", "El perro corre por el parque.",
    "Il gatto dorme sul divano.", "O gato dorme no sof\u00e1.", "Kot \u015bpi na kanapie.", "Ko\u010dka sp\u00ed na pohovce.",
    "Kissa nukkuu sohvalla.", "A macska a kanap\u00e9n alszik.", "Kedi koltukta uyuyor.", "Katten sover p\u00e5 soffan.",
    "De kat slaapt op de bank.", "Con m\u00e8o \u0111ang ng\u1ee7 tr\u00ean gh\u1ebf.", "Kucing itu tidur di sofa.",
    "\u041a\u043e\u0448\u043a\u0430 \u0441\u043f\u0438\u0442 \u043d\u0430 \u0434\u0438\u0432\u0430\u043d\u0435.",
    "\u0412\u0447\u0435\u0440\u0430 \u0448\u0451\u043b \u0434\u043e\u0436\u0434\u044c.",
    "\u0397 \u03b3\u03ac\u03c4\u03b1 \u03ba\u03bf\u03b9\u03bc\u03ac\u03c4\u03b1\u03b9.", "\u732b\u5728\u6c99\u53d1\u4e0a\u7761\u89c9\u3002",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d", "\u732b\u304c\u30bd\u30d5\u30a1\u3067\u5bdd\u3066\u3044\u308b\u3002",
    "\u304a\u306f\u3088\u3046\u3054\u3056\u3044\u307e\u3059", "\uace0\uc591\uc774\uac00 \uc18c\ud30c\uc5d0\uc11c \uc794\ub2e4.",
    "\u0627\u0644\u0642\u0637 \u0646\u0627\u0626\u0645 \u0639\u0644\u0649 \u0627\u0644\u0623\u0631\u064a\u0643\u0629.",
    "\u0627\u0644\u0652\u0639\u064e\u0631\u064e\u0628\u0650\u064a\u064e\u0651\u0629", "\u05d4\u05d7\u05ea\u05d5\u05dc \u05d9\u05e9\u05df \u05e2\u05dc \u05d4\u05e1\u05e4\u05d4.",
    "\u092c\u093f\u0932\u094d\u0932\u0940 \u0938\u094b\u092b\u0947 \u092a\u0930 \u0938\u094b \u0930\u0939\u0940 \u0939\u0948\u0964",
    "\u0baa\u0bc2\u0ba9\u0bc8 \u0ba4\u0bc2\u0b99\u0bcd\u0b95\u0bc1\u0b95\u0bbf\u0bb1\u0ba4\u0bc1", "\u0e41\u0e21\u0e27\u0e19\u0e2d\u0e19\u0e1a\u0e19\u0e42\u0e0b\u0e1f\u0e32",
    "\u10d9\u10d0\u10e2\u10d0 \u10e1\u10eb\u10d8\u10dc\u10d0\u10d5\u10e1", "\u0540\u0561\u0575\u0565\u0580\u0565\u0576",
    "\u12f5\u1218\u1275 \u1270\u129d\u1277\u120d", "\uff28\uff45\uff4c\uff4c\uff4f \uff37\uff4f\uff52\uff4c\uff44", "\u2460\u2461\u2462 \u00bd \u2167 \u00b5m \u2126",
    "\u0130stanbul'da I\u015f\u0131k", "Stra\u00dfe STRASSE \u1e9e", "cafe\u0301 vs caf\u00e9", "\ufb01ne \ufb02uff", "\U0001d573\U0001d58a\U0001d591\U0001d591\U0001d594",
    "\U0001f600\U0001f680\U0001f469\u200d\U0001f469\u200d\U0001f467 family", "a\u00a0b\u2003c\u3000d",
]


def novel():
    """30 sentences of every length, and 12 passages of which the longest are cut."""
    text = (ROOT / "examples" / "persuasion.txt").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", text)
    sentences = sorted({s.strip() for s in re.findall(r"[A-Z][^.!?]{20,600}[.!?]", text)}, key=lambda s: (len(s), s))
    step = len(sentences) / 30
    picked = [sentences[int((i + 0.5) * step)] for i in range(30)]
    words = text.split()[2000:]
    return picked, [" ".join(words[i * 700:i * 700 + n]) for i, n in
                    enumerate([120, 160, 190, 200, 205, 210, 215, 220, 260, 320, 400, 700])]


def texts():
    picked, passages = novel()
    out = EMPTY + ENGLISH + SCRIPTS + picked + passages
    out += [s for s in hard_strings.FIXED if s and "\0" not in s and not any(t in s for t in hard_strings.SPECIAL)]
    out = list(dict.fromkeys(out))[:200]
    assert len(out) == 200
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default=os.environ.get("KEYHOLE_MODELS") or "~/.cache/keyhole/models")
    folder = pathlib.Path(parser.parse_args().models).expanduser() / "all-MiniLM-L6-v2"
    torch.set_num_threads(1)
    model = BertModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    assert json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"] == LONGEST
    lines, lengths, all_ids, rows, worst = texts(), [], [], [], 0.0
    for text in lines:
        ids = tokenizer.encode(text).ids
        with torch.no_grad():
            states = model(torch.tensor([ids])).last_hidden_state[0].double()
        row = states.mean(0)
        row = (row / row.norm()).numpy()
        half = row.astype("<f2").astype(np.float64)
        worst = max(worst, 1 - half @ row / np.linalg.norm(half))
        lengths.append(len(ids))
        all_ids += ids
        rows.append(row)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "minilm.jsonl").write_text("".join(json.dumps({"text": t}, ensure_ascii=True) + "\n" for t in lines))
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).digest()
    data = struct.pack("<8s32s4I", b"KHEMBED1", digest, len(lines), len(rows[0]), len(all_ids), LONGEST)
    data += b"".join(np.asarray(a, t).tobytes() for a, t in
                     ((lengths, "<u4"), (all_ids, "<u2"), (rows, "<f2")))
    (OUT / "minilm.bin").write_bytes(data)
    sizes = [(OUT / n).stat().st_size for n in ("minilm.jsonl", "minilm.bin")]
    print(f"{len(lines)} texts of {min(lengths)} to {max(lengths)} tokens, {lengths.count(LONGEST)} cut or full; "
          f"halves cost {worst:.1e} of cosine; {sizes} bytes")


if __name__ == "__main__":
    main()

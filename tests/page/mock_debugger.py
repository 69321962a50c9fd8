"""A server that answers the debugger's page with made-up numbers: a model of 30 layers that needs no file and no time.

    python3 tests/page/mock_debugger.py [--port 8080] [--tokens 4096] [--delay SECONDS] [--page FILE.html]

What it says is a function of the text, so two runs of a test see the same. Sums are exact: the parts of a logit
add up, probabilities add to at most 1, an edit changes the third generated token."""
import argparse
import json
import math
import pathlib
import re
import threading
import time
import urllib.parse
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LAYERS, HEADS, WIDTH_FF, VOCABULARY = 30, 9, 1536, 49152
PAGE = pathlib.Path(__file__).resolve().parents[2] / "web/dist/debugger.html"
EXAMPLE = "Rome is the capital of Italy. The capital of France is"
STORY = " Paris, and the river that runs through it is called the Seine. In the north of the city"
OTHER = " Paris, but people of the south say that Lyon was there before it, and Marseille before both"
WORDS = (" the of and to in a is that for it was on are as with his they at be this from have or by one had not but what all were"
         " when we there can an your which their said if do will each about how up out them then she many some so these would"
         " other into has more her two like him see time could no make than first been its who now people my made over did down"
         " only way find use may water long little very after words called just where most know Paris Lyon Rome London Berlin"
         " Madrid France Italy capital city river located Marseille north south Seine house light night world music\n").split(" ")  # fmt: skip
KEYWORDS = [" Paris", " located", " the", " a", " Lyon", " also", " one", " known", " called", " situated"]


class Vocabulary:
    def __init__(self):
        self.texts, self.ids, self.lock = [], {}, threading.Lock()
        for piece in ["<|start|>", "<|end|>"] + KEYWORDS + [" " + word for word in WORDS if word.strip()] + ["\n", ".", ","]:
            self.id(piece)

    def id(self, text):
        with self.lock:
            if text not in self.ids:
                self.ids[text] = len(self.texts)
                self.texts.append(text)
            return self.ids[text]

    def encode(self, text):
        return [self.id(piece) for piece in re.findall(r"<\|\w+\|>| ?[^\W_]{1,9}|\s|[^\w\s]|_", text)]

    def token(self, number, **more):
        return {"id": number, "text": self.texts[number], **more}


VOC = Vocabulary()


def chance(*what):
    """In [0, 1), of the words given."""
    return zlib.crc32(repr(what).encode()) / 2**32


def pick(*what):
    return VOC.id(" " + [w for w in WORDS if w.strip()][int(chance(*what) * (len(WORDS) - 1))].strip())


def best(ids, position, count=10):
    """The model's own next tokens: ids and probabilities, best first."""
    here = VOC.texts[ids[position]]
    tail = "".join(VOC.texts[i] for i in ids[max(0, position - 5) : position + 1])
    first = KEYWORDS if tail.endswith(EXAMPLE[-12:]) else []
    found = [VOC.id(text) for text in first]
    k = 0
    while len(found) < count:
        number = pick(here, position % 7, k)
        k += 1
        if number not in found:
            found.append(number)
    sharp = 0.25 + 0.6 * chance("sharp", here, position)
    return found[:count], [sharp * (1 - sharp) ** k * 0.97 for k in range(count)]


def lens_cell(ids, position, layer, shift, top_n):
    """Top ids, their probabilities, entropy, KL, rank of a token that wins in the end."""
    final, shares = best(ids, position, max(top_n, 3))
    settled = 10 + int(14 * chance("settle", ids[position], position)) + shift
    far = max(0, settled - layer) / settled
    if layer < settled:
        tops = [pick("early", ids[position], layer // 4, k) for k in range(top_n + 1)]
        tops = list(dict.fromkeys(tops + final))[:top_n]
        shares = [(0.04 + 0.5 * chance(ids[position], layer // 3)) * 0.6**k * (1 - 0.6 * far) for k in range(top_n)]
    else:
        grow = (layer - settled + 1) / (LAYERS - settled)
        tops, shares = final[:top_n], [p * (0.35 + 0.65 * grow) for p in shares[:top_n]]
    return tops, shares, 0.6 + 8 * far + chance("e", position, layer), 6 * far + (0.4 * (1 - layer / (LAYERS - 1)))


def continuation(ids, prompt, edits, count, temperature, seed):
    text = VOC.encode(OTHER if edits else STORY)
    if temperature > 0:
        text = text[:4] + [pick(seed, k) for k in range(20)]
    if not "".join(VOC.texts[i] for i in ids[:prompt]).endswith(EXAMPLE[-12:]):
        text = [pick("go", ids[prompt - 1], k, bool(edits) and k > 2) for k in range(20)]
    if edits and any("scale=1.0" in e or e.endswith("scale=1") for e in edits):
        text = VOC.encode(STORY)
    return (text * 10)[:count]


class Refused(Exception):
    pass


def subject(body):
    if "tokens" in body:
        ids = body["tokens"]
        if not ids or any(not 0 <= i < len(VOC.texts) for i in ids):
            raise Refused(f"tokens: ids from 0 to {len(VOC.texts) - 1} expected")
    else:
        text = body.get("prompt", "")
        if body.get("template"):
            text = f"<|start|>user\n{text}<|end|>\n<|start|>assistant\n"
        ids = VOC.encode(text)
    if not ids:
        raise Refused("prompt: a text of at least one token expected, this one is empty")
    for edit in body.get("edits") or []:
        if not re.match(r"(L\d+[HN]\d+|\d+_\w+|embed):(zero|scale=|set=|add=|mean|project=)", edit):
            raise Refused(f'edit "{edit}": PART:OPERATION expected, such as L12H3:zero')
    return ids, body.get("prompt_tokens") or len(ids)


def chosen(body, ids, position):
    def one(given, otherwise):
        if given is None:
            return otherwise
        if isinstance(given, str):
            found = VOC.encode(given)
            if len(found) != 1:
                raise Refused(f'"{given}" is {len(found)} tokens, one expected')
            return found[0]
        return given

    tops, shares = best(ids, position)
    a = one(body.get("a"), tops[0])
    b = None if body.get("alone") else one(body.get("b"), next(t for t in tops if t != a))

    def said(number):
        rank = tops.index(number) if number in tops else 100 + int(900 * chance(number))
        p = shares[rank] if rank < 10 else 1e-5
        return VOC.token(number, logit=18 + math.log(p), probability=p, rank=rank)

    return said(a), None if b is None else said(b)


def head_value(a, b, layer, head, position):
    size = 2.2 * chance("h", layer, head, position) ** 12 * (layer / LAYERS + 0.2)
    return size * (1 if chance("s", layer, head, a["id"]) > 0.42 else -1)


def neuron_value(a, layer, number, position):
    size = 2.0 * chance("n", layer, number, position) ** 20
    return size * (1 if chance("t", layer, number, a["id"]) > 0.45 else -1)


def words_of(*seed, count=5, logit=9.0):
    return [VOC.token(pick(*seed, k), logit=logit * 0.93**k) for k in range(count)]


def why(body):
    ids, _ = subject(body)
    position = body.get("position", len(ids) - 1)
    a, b = chosen(body, ids, position)
    heads, neurons = [], []
    for layer in range(LAYERS):
        for head in range(HEADS):
            value = head_value(a, b, layer, head, position)
            source = int(position * chance("src", layer, head))
            heads.append({"part": f"L{layer}H{head}", "kind": "head", "layer": layer, "index": head, "value": value,
                          "source": {"position": source, **VOC.token(ids[source]), "value": value * 0.8}})  # fmt: skip
        for k in range(12):
            number = int(WIDTH_FF * chance("w", layer, k))
            value = neuron_value(a, layer, number, position)
            neurons.append({"part": f"L{layer}N{number}", "kind": "neuron", "layer": layer, "index": number, "value": value,
                            "coefficient": 3 * chance("c", layer, number) - 1, "tokens": words_of("v", layer, number)})  # fmt: skip
    head_sum, neuron_sum = sum(h["value"] for h in heads), sum(n["value"] for n in neurons)
    embed, leftover = 0.21, 3.1e-5
    total = embed + head_sum + neuron_sum + leftover
    if b:
        b["logit"] = a["logit"] - total
    kinds = body.get("kinds") or ["head", "neuron"]
    parts = sorted((p for p in heads + neurons if p["kind"] in kinds), key=lambda p: -abs(p["value"]))[: body.get("most", 12)]
    layers = [{"layer": l, "attention": sum(h["value"] for h in heads if h["layer"] == l),
               "mlp": neuron_sum / LAYERS} for l in range(LAYERS)]  # fmt: skip
    return {"position": position, "a": a, "b": b, "total": total, "sum": total - leftover, "leftover": leftover, "scale": 11.4,
            "embed": embed, "bias": 0.0, "heads": head_sum, "neurons": neuron_sum, "mlps": 0.0, "edits": 0.0, "parts": parts,
            "others": total - leftover - embed - sum(p["value"] for p in parts), "layers": layers, "seconds": 0.08}  # fmt: skip


def head(body):
    ids, _ = subject(body)
    position = body.get("position", len(ids) - 1)
    layer, number = (int(x) for x in re.match(r"L(\d+)H(\d+)$", body["part"]).groups())
    if layer >= LAYERS or number >= HEADS:
        raise Refused(f"{body['part']}: layers 0 to {LAYERS - 1} and heads 0 to {HEADS - 1} expected")
    a, b = chosen(body, ids, position)
    total = head_value(a, b, layer, number, position)
    keys = list(range(position + 1)) if position < 64 else sorted({0, *(int(position * chance("k", layer, number, k)) for k in range(70))})[:64]
    source = int(position * chance("src", layer, number))
    raw = [(6 if key == source else 3 if key == 0 else 0.2 + chance("r", layer, number, key) ** 3) for key in keys]
    weights = [r / sum(raw) for r in raw]
    values = [total * w for w in weights]
    at = lambda k: VOC.texts[ids[k]] if 0 <= k < len(ids) else ""
    strongest = sorted(range(len(keys)), key=lambda i: -weights[i])[:5]
    snippets = [{"position": keys[i], "weight": weights[i], "value": values[i], "before": "".join(at(k) for k in range(keys[i] - 4, keys[i])),
                 "token": at(keys[i]), "after": "".join(at(k) for k in range(keys[i] + 1, min(keys[i] + 4, position + 1)))} for i in strongest]  # fmt: skip
    return {"part": body["part"], "position": position, "kept": 0.973 if position >= 64 else 1.0, "entropy": 1.9, "value": total, "keys": keys,
            "weights": weights, "norms": [w * 4 for w in weights], "values": values, "snippets": snippets,
            "writes": {"top": words_of("hw", layer, number, count=10), "bottom": words_of("hb", layer, number, count=10, logit=-8.0)}}  # fmt: skip


def neurons(body):
    ids, _ = subject(body)
    position = body.get("position", len(ids) - 1)
    a, _ = chosen(body, ids, position)
    layers = range(LAYERS) if body.get("layer") is None else [body["layer"]]
    out = []
    for layer in layers:
        found = []
        for k in range(body.get("most", 10)):
            number = int(WIDTH_FF * chance("w", layer, k))
            found.append({"part": f"L{layer}N{number}", "neuron": number, "coefficient": 3 * chance("c", layer, number) - 1,
                          "score": 6 * 0.8**k, "value": neuron_value(a, layer, number, position), "tokens": words_of("v", layer, number)})  # fmt: skip
        found.sort(key=lambda n: -abs(n["value"] if body.get("by") == "value" else n["score"]))
        out.append({"layer": layer, "neurons": found})
    return {"position": position, "layers": out}


def neuron(body):
    layer, number = (int(x) for x in re.match(r"L(\d+)[ND](\d+)$", body["part"]).groups())
    if layer >= LAYERS or number >= WIDTH_FF:
        raise Refused(f"{body['part']}: layers 0 to {LAYERS - 1} and neurons 0 to {WIDTH_FF - 1} expected")
    most = body.get("top_n", 50)
    ends = lambda kind: {"top": words_of(kind, layer, number, count=most),
                         "bottom": words_of(kind + "-", layer, number, count=most, logit=-7.5)}  # fmt: skip
    here = None
    if "prompt" in body or isinstance(body.get("tokens"), list):
        gate, up = 4 * chance("g", layer, number) - 1.5, 3 * chance("u", layer, number) - 1.2
        act = gate / (1 + math.exp(-gate))
        here = {"position": body["position"], "gate": gate, "up": up, "activated": act, "coefficient": act * up, "score": abs(act * up) * 1.7,
                "value": neuron_value({"id": 12}, layer, number, body["position"]),
                "case": f"gate {'+' if gate > 0 else '-'} up {'+' if up > 0 else '-'}"}  # fmt: skip
    near = [{"part": f"L{int(LAYERS * chance('nl', number, k))}N{int(WIDTH_FF * chance('nn', number, k))}", "cosine": 0.62 * 0.9**k}
            for k in range(body.get("neighbours", 10))]  # fmt: skip
    return {"part": f"L{layer}N{number}", "layer": layer, "neuron": number, "value_norm": 1.71, "gate_norm": 1.2, "up_norm": 1.1,
            "value": ends("v"), "gate": ends("vg"), "up": ends("vu"), "here": here, "neighbours": near}  # fmt: skip


def lens(body, delay):
    ids, prompt = subject(body)
    layers, taps = body.get("layers") or list(range(LAYERS)), body.get("taps") or ["after"]
    first = body.get("first", 0)
    count = body.get("count") or len(ids) - first
    top_n, bottom_n, tracked = body.get("top_n", 10), body.get("bottom_n", 0), body.get("tracked") or []
    if first + count > len(ids):
        raise Refused(f"positions {first} to {first + count - 1}: the text has {len(ids)}")
    cells = count * len(layers) * len(taps)
    yield {"type": "meta", "model": "SmolLM2 135M", "identity": "mock", "attn": "topk:k=64", "layers": layers, "taps": taps, "first": first, "count": count,
           "top_n": top_n, "edits": body.get("edits") or [], "cost": {"cells": cells, "rows": count, "operations": 2.8e7 * cells, "bytes": 1 << 20}}  # fmt: skip
    if body.get("cost_only"):
        return
    yield {"type": "prompt", "tokens": text_tokens(ids), "prompt_tokens": prompt}
    for read in range(512, first if body.get("progress") and delay else 0, 512):
        yield {"type": "reading", "read": read, "of": first}
        time.sleep(delay)
    shifts = {"before": 2, "between": 1, "after": 0}
    for position in range(first, first + count):
        if delay:
            time.sleep(delay)
        frame = {"type": "token", "position": position, "id": ids[position], "token": VOC.texts[ids[position]], "is_generated": position >= prompt,
                 "is_char_continuation": False, "layers_by_type": {tap: layers for tap in taps}, "top_n": top_n}  # fmt: skip
        for key in ("top_ids", "top_tokens", "top_probs", "bottom_ids", "bottom_tokens", "entropy", "kl", "norm", "tracked"):
            frame[key] = {tap: [] for tap in taps}
        for tap in taps:
            for layer in layers:
                tops, shares, entropy, kl = lens_cell(ids, position, layer, shifts[tap] + (3 if body.get("edits") else 0), top_n)
                frame["top_ids"][tap].append(tops)
                frame["top_tokens"][tap].append([VOC.texts[t] for t in tops])
                frame["top_probs"][tap].append(shares)
                frame["entropy"][tap].append(entropy)
                frame["kl"][tap].append(0.0 if tap == "after" and layer == LAYERS - 1 else kl)
                frame["norm"][tap].append(20 + 9 * layer)
                low = [pick("low", position, layer, k) for k in range(bottom_n)]
                frame["bottom_ids"][tap].append(low)
                frame["bottom_tokens"][tap].append([VOC.texts[t] for t in low])
                final, _ = best(ids, position)
                ranks = [int((final.index(t) if t in final else 300) + 9000 * (1 - layer / (LAYERS - 1)) ** 3 * chance("rank", t, layer // 2)) for t in tracked]
                frame["tracked"][tap].append([{"id": t, "logit": 10.0, "probability": 0.5 / (r + 1), "rank": r} for t, r in zip(tracked, ranks)])
        frame["surprise"] = None if position == 0 else 0.05 + 7 * chance("surprise", ids[position], position) ** 3
        yield frame
    yield {"type": "done", "seconds": 0.3, "peak_bytes": 212_000_000}


def edit(body, delay):
    ids, prompt = subject(body)
    ids, edits, count = ids[:prompt], body.get("edits") or [], body.get("max_tokens", 20)
    flags = " ".join(f"--edit '{e}'" for e in edits)
    shown = "".join(VOC.texts[i] for i in ids[:40])
    yield {"type": "meta", "prompt_tokens": prompt, "edits": edits, "command": f"keyhole edit -m model.gguf -p '{shown}' {flags} -n {count}".replace("  ", " ")}
    how = (body.get("temperature", 0), body.get("seed", 1))
    edits = edits + [str(one) for one in body.get("control_vectors", [])]
    base, edited = (continuation(ids, prompt, e, count, *how) for e in ([], edits))
    for kind, out in (("base", base), ("edited", edited)):
        for index, number in enumerate(out):
            if delay:
                time.sleep(delay)
            yield {"type": kind, "index": index, **VOC.token(number), "logprob": -3 * chance(kind, index, number) ** 2}
    for k in range(count):
        kl = (0.02 + 2.5 * chance("kl", k, *edits) ** 3) if edits else 0.0
        yield {"type": "compared", "position": prompt - 1 + k, "kl": kl, "base_top": VOC.token(base[k], probability=0.41),
               "edited_top": VOC.token(edited[k], probability=0.33), "base_next": base[k], "edited_next": edited[k]}  # fmt: skip
    apart = next((k for k in range(count) if base[k] != edited[k]), None)
    said = lambda out: {"text": "".join(VOC.texts[i] for i in out), "tokens": out}
    yield {"type": "done", "base": said(base), "edited": said(edited), "divergence": apart, "seconds": 0.6, "tokens_per_second": 61.5,
           "peak_bytes": 214_000_000}  # fmt: skip


def text_tokens(ids):
    return [VOC.token(i, continuation=False, special=VOC.texts[i].startswith("<|")) for i in ids]


def text(body):
    ids, prompt = subject(body)
    return {"tokens": text_tokens(ids), "prompt_tokens": prompt}


def following(body):
    ids, _ = subject(body)
    first, count = body.get("first", 0), body.get("count") or len(ids) - body.get("first", 0)
    out = []
    for position in range(first, first + count):
        tops, shares = best(ids, position, body.get("top_n", 10))
        out.append({"position": position, "next": [VOC.token(t, logit=18 + math.log(p), probability=p) for t, p in zip(tops, shares)], "entropy": 2.1})
    return {"positions": out}


ROUTES = ["/v1/capabilities", "/v1/checks", "/v1/search", "/v1/find-heads", "/v1/search/text", "/v1/search/table", "/v1/clusters", "/v1/steer/vector", "/control-vectors", "/v1/diff", "/v1/patch",
          "/v1/labels", "/v1/views"]  # fmt: skip


def search(body):
    for word in body["words"]:
        if isinstance(word, str) and len(VOC.encode(word)) != 1:
            raise Refused(f'words: "{word}" is {len(VOC.encode(word))} tokens, one is expected')
    hits = []
    for end in ("top", "bottom"):
        found = []
        for k in range(body.get("most", 20)):
            layer = int(LAYERS * chance(end, k, body["words"]))
            number = int((HEADS if body.get("heads") else WIDTH_FF) * chance("number", end, k))
            logit = (3.6 * 0.96**k) * (1 if end == "top" else -1)
            hit = {"part": f"L{layer}{'H' if body.get('heads') else 'N'}{number}", "end": end, "logit": logit, "cosine": logit / 14}
            if not body.get("heads"):
                hit.update(rank=int(400 * chance("rank", end, k)), tokens=words_of("v" if end == "top" else "v-", layer, number))
            found.append(hit)
        found = list({hit["part"]: hit for hit in found}.values())
        key = {"logit": lambda hit: -abs(hit["logit"]), "cosine": lambda hit: -abs(hit["cosine"]), "rank": lambda hit: hit["rank"]}[body.get("by", "logit")]
        hits += sorted(found, key=key)
    return {"hits": hits, "seconds": 0.1}


def table_now(server):
    return {"layers": LAYERS, "ready": server.ready, "neurons": server.ready * WIDTH_FF, "tokens": 20}


def search_text(server, body):
    """Neurons of the layers that are ready; the first token is a word that was asked for."""
    words = body["text"].replace(",", " ").split()
    hits = []
    for k in range(min(server.ready, body.get("most", 20))):
        layer, number = k, int(WIDTH_FF * chance("text", k, body["text"]))
        tokens = words_of("v", layer, number)
        tokens.insert(2, {"id": 7, "text": f" {words[k % len(words)].capitalize()}", "logit": 2.5})
        hits.append({"part": f"L{layer}N{number}", "end": "bottom" if k % 3 == 1 else "top", "score": 12 * 0.95**k, "tokens": tokens})
    labels = [{"part": "L5H3", "text": f"about {words[0]}", "time": 1763860000, "score": 1.2}]
    return {"table": table_now(server), "labels": labels, "hits": hits, "seconds": 0.004}


def search_table(server, body):
    def frame(kind):
        missing = (LAYERS - server.ready) * WIDTH_FF
        return {**table_now(server), "type": kind, "missing": missing, "bytes": missing * 540, "seconds": missing / 1600}

    yield frame("cost")
    for _ in range(body.get("layers", LAYERS)):
        if server.ready < LAYERS:
            server.ready += 1
            yield frame("layer")
    yield frame("done")


def clusters(body, delay):
    for k in range(1, 4):
        time.sleep(delay)
        yield {"type": "round", "round": k, "moved": 9000 // k, "cosine": 0.1 + 0.05 * k}
    found = [{"size": 40 + 7 * k, "cosine": 0.2 + 0.7 * chance("cluster", k), "top": words_of("c", k, 1), "bottom": words_of("c-", k, 1),
              "members": [{"part": f"L{n % LAYERS}N{k}", "cosine": 0.9 - 0.01 * n} for n in range(20)]} for k in range(body["clusters"])]  # fmt: skip
    yield {"type": "done", "clusters": found, "neurons": LAYERS * WIDTH_FF, "rounds": 3, "settled": True, "cosine": 0.31, "seconds": 2.5}


def find_heads(body):
    heads = [{"part": f"L{layer}H{h}", "scores": {name: chance(name, layer, h) ** 8 * (3 if name == "entropy" else 0.95)
              for name in ("induction", "previous", "duplicate", "sink", "entropy", "retrieval")}} for layer in range(LAYERS) for h in range(HEADS)]  # fmt: skip
    heads.sort(key=lambda head: -head["scores"][body["by"]])
    return {"by": body["by"], "tokens": 2 * body["random"], "heads": heads[: body["most"]], "seconds": 0.4}


def written(vector):
    layers = [{"layer": layer, "norm": 1.0, "top": words_of("cv", vector["path"]), "bottom": words_of("cv-", vector["path"])} for layer in range(1, LAYERS)]
    return {**vector, "layers": layers}


def learn(vectors, body):
    if "id" in body:
        return written(vectors[body["id"]])
    for name in ("from", "minus"):
        text = body.get(name, " a")
        if len(VOC.encode(text)) != 1 and not re.match(r"L\d+N\d+$", text):
            raise Refused(f'{name}: "{text}" is {len(VOC.encode(text))} tokens, one is expected')
    if any(len(side) == 0 for pair in body.get("pairs", []) for side in pair):
        raise Refused("a text to learn from, or its token ids, is expected")
    vectors.append({"id": len(vectors), "path": body["name"], "scale": body.get("scale", 0.0), "layers": None})
    return written(vectors[-1])


def set_vectors(vectors, scales):
    for one in vectors:
        one["scale"] = next((given["scale"] for given in scales if given["id"] == one["id"]), 0.0)
    return vectors


def label(labels, body):
    if "<refuse>" in body["text"]:
        raise Refused("text: a label without <refuse> is expected")
    one = {"part": body["part"], "text": body["text"], "time": 1_763_860_000 + len(labels)}
    labels[:] = [other for other in labels if other["part"] != body["part"]] + ([one] if body["text"] else [])
    return one


def import_labels(labels, lines):
    before = list(labels)
    for line in lines.splitlines():
        one = json.loads(line)
        if "part" not in one:
            raise Refused("line 1: part: a part such as L12N345 or L5H3 is expected")
        label(labels, one)
    return {"labels": len(lines.splitlines()), "views": 0, "changed": sum(one not in before for one in labels)}


def two_prompts(body):
    clean, corrupted = (subject({"prompt": body.get(name, "")})[0] for name in ("clean", "corrupted"))
    if len(clean) != len(corrupted):
        raise Refused(f"the clean prompt has {len(clean)} tokens and the corrupted one {len(corrupted)}: as many are expected; they differ first at position 0")
    return clean, corrupted


def patch(body, delay):
    clean, corrupted = two_prompts(body)
    first = next((i for i, pair in enumerate(zip(clean, corrupted)) if pair[0] != pair[1]), len(clean))
    kinds, count = body.get("kinds") or ["pre"], len(clean)
    high, low = 7.3, -6.0
    runs = sum(LAYERS * (HEADS if kind == "heads" else count - first) for kind in kinds)
    yield {"type": "meta", "attn": "topk:k=64", "a": VOC.token(VOC.id(" Paris")), "b": VOC.token(VOC.id(" Rome")),
           "clean": {"tokens": text_tokens(clean), "value": high}, "corrupted": {"tokens": text_tokens(corrupted), "value": low}, "first": first,
           "differing": sum(a != b for a, b in zip(clean, corrupted)), "layers": LAYERS, "heads": HEADS, "to": body.get("to"), "input": "",
           "estimate": bool(body.get("attribution")), "exact_cost": {"cells": runs, "runs": runs, "rows": 2 * runs, "full_rows": count * runs, "bytes": 1 << 17} if body.get("attribution") else None,
           "cost": {"cells": runs, "runs": runs, "rows": 2 * runs, "full_rows": count * runs, "bytes": 1 << 17}}  # fmt: skip
    found = []
    for kind in [] if body.get("cost_only") else kinds:
        for layer in range(LAYERS):
            if delay:
                time.sleep(delay)
            if kind == "heads":
                shares = [(1.1 * chance("patch", layer, h) ** 14 - 0.15 * chance("low", layer, h) ** 9) * (0.3 if body.get("to") else 1) for h in range(HEADS)]
            else:
                late = 1 / (1 + math.exp((20 - layer) / 1.5))
                fall = 1 if kind == "pre" else 0.12 * chance(kind, layer)
                shares = [fall * (late if p == count - 1 else (1 - late) if p == first else 0.04 * chance(kind, layer, p)) for p in range(first, count)]
            found += [{"part": f"L{layer}H{i}" if kind == "heads" else f"{layer}_{kind}", "position": None if kind == "heads" else first + i,
                       "value": low + (high - low) * share, "share": share} for i, share in enumerate(shares)]  # fmt: skip
            yield {"type": "row", "kind": kind, "layer": layer, "position": None, "estimate": bool(body.get("attribution")), "values": [low + (high - low) * share for share in shares], "shares": shares}
    yield {"type": "done", "strongest": sorted(found, key=lambda cell: -abs(cell["share"]))[:10], "seconds": 0.7}


def diff(body, delay):
    ids, _ = subject(body)
    other, attn = ids, body.get("attn", "topk:k=64")
    if "other" in body:
        other, _ = subject({"prompt": body["other"]})
        if len(other) != len(ids):
            raise Refused(f"one text has {len(ids)} tokens and the other {len(other)}: as many are expected")
    elif not re.match(r"(full|topk(:k=\d+)?)$", attn):
        raise Refused(f'attention "{attn}": full or topk:k=64 expected')
    side = lambda tokens, setting: {"file": "SmolLM2-135M-Instruct.Q4_1.gguf", "attn": setting, "tokens": text_tokens(tokens)}
    yield {"type": "meta", "a": side(ids, "topk:k=64"), "b": side(other, attn), "threshold": body.get("threshold", 0.05)}
    rows = []
    for position, pair in enumerate(zip(ids, other)):
        if delay:
            time.sleep(delay)
        apart = pair[0] != pair[1] or (position > 3 and ids == other)
        kl = 3 * chance("diff", position) ** 4 if apart else 0.0
        tops = [VOC.token(best(tokens, position)[0][0], probability=0.4) for tokens in (ids, other)]
        rows.append({"type": "row", "position": position, "part": f"{int(9 * chance('part', position))}_attn_out" if apart else None, "distance": 0.06 if apart else None,
                     "last": 0.3 if apart else 0.0, "kl": kl, "a_top": tops[0], "b_top": tops[1]})  # fmt: skip
        yield rows[-1]
    first = next((row for row in rows if row["part"]), None)
    worst = max(rows, key=lambda row: row["kl"])
    names = ["embed"] + [f"{layer}_{kind}_out" for layer in range(LAYERS) for kind in ("attn", "mlp")]
    yield {"type": "done", "first": first and {key: first[key] for key in ("position", "part", "distance")}, "mean_kl": sum(row["kl"] for row in rows) / len(rows),
           "most_kl": worst["kl"], "most_position": worst["position"], "parts": [{"part": name, "apart": 0.12 + 0.08 * chance("apart", name),
           "own": 0.06 * chance("own", name) if "attn" in name else 0.0} for name in names], "seconds": 0.9}  # fmt: skip


def capabilities(example):
    model = {"name": "SmolLM2 135M Instruct", "file": "SmolLM2-135M-Instruct.Q4_1.gguf", "architecture": "llama", "quantisation": "Q4_1", "identity": "mock",
             "bytes": 98_000_000, "parameters": 134_515_008, "layers": LAYERS, "heads": HEADS, "key_heads": 3, "head_width": 64, "width": 576,
             "ff_width": WIDTH_FF, "vocabulary": VOCABULARY, "context": 8192, "gated": True, "parallel": False, "experts": False}  # fmt: skip
    return {"keyhole": "0.1.0", "model": model, "attn": "topk:k=64", "ff": "dense", "threads": 2, "taps": ["before", "between", "after"],
            "points": ["resid_pre", "resid_mid", "resid_post"], "inspect": True, "template": True,
            "checks": None, "routes": ROUTES,
            "example": {"prompt": example}}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, kind, data):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/":
            self.send(200, "text/html; charset=utf-8", self.server.page.read_bytes())
        elif path == "/v1/capabilities":
            self.answer(capabilities(self.server.example))
        elif path == "/v1/checks":
            self.server.asked.append((path, None))
            self.answer({"checks": self.server.checks})
        elif path == "/control-vectors":
            self.answer(self.server.vectors)
        elif path == "/v1/labels":
            self.answer({"labels": self.server.labels})
        elif path == "/v1/labels/export":
            self.send(200, "application/x-ndjson", "".join(json.dumps(one) + "\n" for one in self.server.labels).encode())
        elif path == "/v1/views":
            self.answer({"views": [{"name": name, "query": query, "time": 1_763_860_000} for name, query in sorted(self.server.views.items())]})
        else:
            self.refuse(404, f"{path}: no such route")

    def answer(self, value, status=200):
        self.send(status, "application/json", json.dumps(value).encode())

    def refuse(self, status, sentence):
        self.answer({"error": {"code": status, "message": sentence, "type": "invalid_request_error"}}, status)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()

    def do_PUT(self):
        body, (kind, _, name) = json.loads(self.body()), self.path.removeprefix("/v1/").partition("/")
        self.server.asked.append((self.path, body))
        try:
            if kind == "labels":
                self.answer(label(self.server.labels, body))
            else:
                self.server.views[urllib.parse.unquote(name)] = body["query"]
                self.answer({"name": name, **body})
        except Refused as sentence:
            self.refuse(400, str(sentence))

    def do_DELETE(self):
        name = urllib.parse.unquote(self.path.removeprefix("/v1/views/"))
        self.answer({"name": name, "deleted": self.server.views.pop(name, None) is not None})

    def do_POST(self):
        given = self.body()
        body = given if self.path == "/v1/labels/import" else json.loads(given)
        self.server.asked.append((self.path, body))
        plain = {"/v1/text": text, "/v1/next": following, "/v1/why": why, "/v1/head": head, "/v1/neurons": neurons, "/v1/neuron": neuron,
                 "/v1/search": search, "/v1/search/text": lambda body: search_text(self.server, body), "/v1/find-heads": find_heads, "/v1/steer/vector": lambda body: learn(self.server.vectors, body),
                 "/control-vectors": lambda body: set_vectors(self.server.vectors, body),
                 "/v1/labels/import": lambda body: import_labels(self.server.labels, body)}  # fmt: skip
        streams = {"/v1/lens/prompt": lens, "/v1/edit": edit, "/v1/patch": patch, "/v1/diff": diff, "/v1/clusters": clusters,
                   "/v1/search/table": lambda body, delay: search_table(self.server, body)}  # fmt: skip
        try:
            if self.path in plain:
                self.answer(plain[self.path](body))
            elif self.path in streams:
                frames = streams[self.path](body, self.server.delay)
                first = next(frames)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-ndjson")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.frame(first)
                for frame in frames:
                    self.frame(frame)
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.refuse(404, f"{self.path}: no such route")
        except Refused as sentence:
            self.refuse(400, str(sentence))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def frame(self, value):
        line = json.dumps(value).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")


class Mock(ThreadingHTTPServer):
    """In a thread of its own; `asked` lists (path, body)."""

    daemon_threads = True

    def __init__(self, port=0, example=EXAMPLE, delay=0.0, page=PAGE):
        super().__init__(("127.0.0.1", port), Handler)
        self.checks = [{"name": "sums", "passed": True, "detail": "probabilities of 30 layers sum to 1 within 7e-07"},
                       {"name": "lens", "passed": True, "detail": "the last cell is the model's own distribution within 4e-07"}]  # fmt: skip
        self.vectors, self.labels, self.views = [], [{"part": "L20H4", "text": "capitals", "time": 1, "from": "another"}], {}
        self.ready = 0  # layers of the table of top tokens
        self.example, self.delay, self.page, self.asked = example, delay, pathlib.Path(page), []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


def long_text(tokens):
    """A text of so many tokens."""
    words = [w for w in WORDS if w.strip()]
    return " ".join(words[int(chance("long", k) * len(words))].strip() for k in range(tokens))


def main():
    parser = argparse.ArgumentParser(description="answers the debugger's page with made-up numbers")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--page", default=PAGE)
    given = parser.parse_args()
    server = Mock(given.port, long_text(given.tokens) if given.tokens else EXAMPLE, given.delay, given.page)
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

"""LM-Debugger's three routes: its keys and shapes, numbers that are computed here again from the file's matrices, and that a
mistake gets a status and a sentence, where the original was silent."""

import json
import math
import os
import struct

from serving import Server, check, finish

MODEL = "tests/golden/families/gpt2"
PROMPT = "abab the"
with open("tests/golden/lm_debugger.json") as file:
    GOLDEN = json.load(file)
TYPES = {"int": int, "real": float, "text": str}


def near(a, b, most=1e-4):
    return math.isclose(a, b, rel_tol=most, abs_tol=most / 10)


def fits(value, shape, where="answer"):
    """The first place where a value has another shape; None: it fits."""
    if isinstance(shape, str):
        return None if type(value) is TYPES[shape] else f"{where}: {value!r} is no {shape}"
    if isinstance(shape, dict):
        if not isinstance(value, dict) or list(value) != list(shape):
            return f"{where}: {value if not isinstance(value, dict) else list(value)}"
        return next((f for name in shape if (f := fits(value[name], shape[name], f"{where}.{name}"))), None)
    if not isinstance(value, list) or len(value) != shape[0]:
        return f"{where}: not {shape[0]} of them"
    return next((f for i, one in enumerate(value) if (f := fits(one, shape[1], f"{where}[{i}]"))), None)


class Matrices:
    """The float32 tensors of a safetensors file, as lists of rows."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            self.data = file.read()

    def rows(self, name):
        one = next(v for k, v in self.header.items() if k.endswith(name))
        first, last = one["data_offsets"]
        values = struct.unpack(f"<{(last - first) // 4}f", self.data[first:last])
        width = one["shape"][-1]
        return [values[i : i + width] for i in range(0, len(values), width)]


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b))


def gelu(x):
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


matrices = Matrices(os.path.join(MODEL, "model.safetensors"))
with open(os.path.join(MODEL, "tokenizer.json")) as file:
    vocabulary = {i: word for word, i in json.load(file)["model"]["vocab"].items()}
vocabulary[139] = "<|endoftext|>"
values = [matrices.rows(f"h.{layer}.mlp.c_proj.weight") for layer in range(3)]


def projections(server):
    head = matrices.rows("wte.weight")
    for layer, dim in [(0, 0), (1, 32), (2, 17)]:
        status, answer = server.get(f"/get_projections/layer/{layer}/dim/{dim}")
        check("/get_projections", status == 200 and not fits(answer, GOLDEN["get_projections"]),
              fits(answer, GOLDEN["get_projections"]))  # fmt: skip
        check("says whose", (answer["layer"], answer["dim"]) == (layer, dim))
        logits = [dot(row, values[layer][dim]) for row in head]
        best = sorted(range(len(head)), key=lambda i: (-logits[i], i))[:50]
        got = answer["top_k"]
        check("raw products with the head", all(near(t["logit"], logits[i]) for t, i in zip(got, best)), got[:3])
        want = [vocabulary[i] for i in best]
        check("tokens as the vocabulary has them", [t["token"] for t in got] == want, [t["token"] for t in got][:9], want[:9])
    words = {t["token"] for d in range(33) for t in server.get(f"/get_projections/layer/0/dim/{d}")[1]["top_k"]}
    check("a space is its letter", "Ġthe" in words and " the" not in words)
    for path, sentence in [("3/dim/0", "layer: a whole number from 0 to 2 is expected, found 3"), ("0/dim/33", "dim"),
                           ("x/dim/0", "numbers are expected"), ("0/dim/-1", "numbers"), ("0/dim/99999999999999", "numbers")]:  # fmt: skip
        server.refused(400, sentence, "GET", f"/get_projections/layer/{path}")
    server.refused(404, "no such path", "GET", "/get_projections/layer/0/dim/")
    server.refused(404, "no such path", "GET", "/get_projections/layer/0")
    server.refused(405, "another method", "POST", "/get_projections/layer/0/dim/0", {})


def same(mine, theirs):
    return len(mine) == len(theirs) and all(near(a, b) for a, b in zip(mine, theirs))


def traces(server, trace, edits):
    """What the debug routes say of the same text under the same edits."""
    subject = {"prompt": PROMPT, "edits": edits}
    neurons = server.post("/v1/neurons", {**subject, "most": 10})[1]["layers"]
    for mine, theirs in zip(trace["layers"], neurons):
        got = mine["significant_values"]
        check("dominant neurons", [v["dim"] for v in got] == [n["neuron"] for n in theirs["neurons"]], got, theirs)
        check("with their layer", all(v["layer"] == mine["layer"] == theirs["layer"] for v in got))
        norms = [math.sqrt(dot(v, v)) for v in values[mine["layer"]]]
        again = [abs(n["coefficient"]) * norms[n["neuron"]] for n in theirs["neurons"]]
        check("score = |coefficient| x norm", same([v["score"] for v in got], again), got, again)
        check("largest first", got == sorted(got, key=lambda v: -v["score"]))
    own = server.post("/v1/next", {**subject, "top_n": 10})[1]["positions"][-1]["next"]
    last = trace["layers"][-1]["predictions_after"]
    check("the last After is the model's own", same([p["score"] for p in last], [t["probability"] for t in own]), last, own)
    check("in its tokens", [p["token"] for p in last] == [t["text"] for t in own], last, own)
    lines = server.request("POST", "/v1/lens/prompt", {**subject, "taps": ["between", "after"], "top_n": 10})[2].splitlines()
    cell = [f for f in map(json.loads, lines) if f["type"] == "token"][-1]
    for layer in trace["layers"]:
        for name, tap in (("predictions_before", "between"), ("predictions_after", "after")):
            got, at = layer[name], layer["layer"]
            check("probabilities", 0 < sum(p["score"] for p in got) <= 1 + 1e-6 and all(p["score"] >= 0 for p in got))
            check(f"{name} is the lens", same([p["score"] for p in got], cell["top_probs"][tap][at]), got)
            check("in decoded tokens", [p["token"] for p in got] == cell["top_tokens"][tap][at], got)


def data(server):
    for body in ({"prompt": PROMPT}, {"prompt": PROMPT, "interventions": []}):
        status, answer = server.post("/get_data", body)
        check("/get_data without interventions", status == 200 and list(answer) == ["response"], answer)
    plain = answer["response"]
    check("its shape", not fits(plain, GOLDEN["trace"]), fits(plain, GOLDEN["trace"]))
    check("the prompt", plain["prompt"] == PROMPT and [x["layer"] for x in plain["layers"]] == [0, 1, 2])
    traces(server, plain, [])

    strongest = [layer["significant_values"][0] for layer in plain["layers"]]
    listed = {v["dim"] for v in plain["layers"][1]["significant_values"]}
    quiet = next(d for d in range(33) if d not in listed)
    items = [{"layer": 1, "dim": quiet, "coeff": 1}, {"layer": 1, "dim": strongest[1]["dim"], "coeff": 0}]
    status, answer = server.post("/get_data", {"prompt": PROMPT, "interventions": items})
    check("with interventions both traces", status == 200 and list(answer) == ["response", "intervention"], answer)
    changed = answer["intervention"]
    check("of one shape", not fits(changed, GOLDEN["trace"]), fits(changed, GOLDEN["trace"]))
    check("the response stays as it is", answer["response"] == plain)
    check("below it nothing changes but at the prompt's", changed["layers"][0] == plain["layers"][0])
    scores = {v["dim"]: v["score"] for v in changed["layers"][1]["significant_values"]}
    switched = gelu(strongest[1]["score"] + 0.01) * math.sqrt(dot(values[1][quiet], values[1][quiet]))
    check("on: S + 0.01 before the activation", near(scores.get(quiet, 0), switched) or
          (quiet not in scores and switched < min(scores.values())), scores, quiet, switched)  # fmt: skip
    check("off: out of the list", strongest[1]["dim"] not in scores, scores)
    check("before stays, after moves", changed["layers"][1]["predictions_before"] == plain["layers"][1]["predictions_before"] and
          changed["layers"][1]["predictions_after"] != plain["layers"][1]["predictions_after"])  # fmt: skip
    edits = [f"L1N{quiet}:compat=1", f"L1N{strongest[1]['dim']}:compat=0"]
    traces(server, changed, edits)
    for coefficient, mode in ((-3, 0), (0.5, 1), (7, 1)):
        one = [{"layer": 2, "dim": 5, "coeff": coefficient}]
        other = [{"layer": 2, "dim": 5, "coeff": mode}]
        check("only the sign of coeff counts", server.post("/get_data", {"prompt": PROMPT, "interventions": one}) ==
              server.post("/get_data", {"prompt": PROMPT, "interventions": other}))  # fmt: skip


def generated(server):
    def text_of(name, edits):
        lines = server.request("POST", "/v1/edit", {"prompt": PROMPT, "max_tokens": 6, "edits": edits})[2].splitlines()
        return next(f for f in map(json.loads, lines) if f["type"] == "done")[name]["text"]

    status, answer = server.post("/generate", {"prompt": PROMPT, "generate_k": 6, "interventions": []})
    check("/generate", status == 200 and not fits(answer, GOLDEN["generate"]), answer)
    check("is the prompt, continued", answer["generate_text"] == PROMPT + text_of("base", []), answer)
    changed = 0
    for dim in range(0, 33, 4):
        items = [{"layer": l, "dim": (dim + d) % 33, "coeff": 1} for l in (1, 2) for d in range(2)]
        edited = server.post("/generate", {"prompt": PROMPT, "generate_k": 6, "interventions": items})[1]["generate_text"]
        edits = [f"L{i['layer']}N{i['dim']}:compat=1" for i in items]
        check("under interventions", edited == PROMPT + text_of("edited", edits), edited)
        changed += edited != answer["generate_text"]
    check("which make a difference", changed > 0)
    status, five = server.post("/generate", {"prompt": PROMPT})
    whole = server.post("/generate", {"prompt": PROMPT, "generate_k": 5})[1]
    check("five tokens unless told otherwise", status == 200 and five == whole)


def refusals(server):
    good = {"layer": 0, "dim": 0, "coeff": 1}
    for path in ("/get_data", "/generate"):
        for body, sentence in [
            ({}, "prompt: a text is expected"),
            ({"prompt": 7}, "prompt"),
            ({"prompt": ""}, ""),
            ({"prompt": PROMPT, "interventions": {}}, "interventions: an array is expected"),
            ({"prompt": PROMPT, "interventions": [7]}, "interventions: entry 0"),
            ({"prompt": PROMPT, "interventions": [good, {**good, "layer": 3}]}, "entry 1: layer: a whole number from 0 to 2"),
            ({"prompt": PROMPT, "interventions": [{**good, "dim": 33}]}, "dim: a whole number from 0 to 32"),
            ({"prompt": PROMPT, "interventions": [{**good, "dim": -1}]}, "dim"),
            ({"prompt": PROMPT, "interventions": [{**good, "coeff": "on"}]}, "coeff"),
            ({"prompt": PROMPT, "interventions": [{"layer": 0, "dim": 0}]}, "coeff: it is missing"),
            ({"prompt": PROMPT, "interventions": [{"dim": 0, "coeff": 1}]}, "layer: it is missing"),
            ({"prompt": PROMPT, "interventions": [good] * 1001}, "at most 1000"),
            ({"prompt": "a " * 400}, "context"),
        ]:
            server.refused(400, sentence, "POST", path, body)
    for many in (0, -1, 4097, "five", 1.5):
        server.refused(400, "generate_k", "POST", "/generate", {"prompt": PROMPT, "generate_k": many})


def parallel():
    with Server("tests/golden/families/gptneox") as server:
        server.refused(501, "no tap in between", "POST", "/get_data", {"prompt": "ab"})
        check("its values have projections", server.get("/get_projections/layer/0/dim/0")[0] == 200)
        check("and it goes on", server.post("/generate", {"prompt": "ab", "generate_k": 2})[0] == 200)


with Server(MODEL) as main:
    projections(main)
    data(main)
    generated(main)
    refusals(main)
    check("it ends well", main.end() == 0)
with Server("tests/golden/tiny/llama.gguf") as gated:
    status, other = gated.post("/get_data", {"prompt": "hello", "interventions": [{"layer": 0, "dim": 1, "coeff": 1}]})
    check("gated layers too", status == 200 and len(other["intervention"]["layers"]) == len(other["response"]["layers"]), other)
    check("they are products, and change it", other["intervention"]["layers"] != other["response"]["layers"])
parallel()
finish()

"""keyhole serve: control vectors that change while it runs, and the routes of steering and patching."""

import json
import os
import subprocess
import tempfile

from serving import KEYHOLE, TINY, Server, check, finish

GREEDY = {"prompt": "a b c d", "temperature": 0, "n_predict": 8, "ignore_eos": True, "return_tokens": True}


def make(folder):
    path = os.path.join(folder, "vector.gguf")
    done = subprocess.run([KEYHOLE, "steer", TINY, "--from", "7", "--minus", "9", "-o", path], capture_output=True, text=True)
    check("keyhole steer writes a file", done.returncode == 0 and os.path.exists(path), done.stderr)
    return path


def said(server):
    status, answer = server.post("/completion", GREEDY)
    check("/completion", status == 200, answer)
    return answer["tokens"]


def strengths(server):
    base = said(server)
    status, vectors = server.get("/control-vectors")
    check("GET gives the list", status == 200 and len(vectors) == 1 and vectors[0]["scale"] == 0, vectors)
    check("which /cvectors gives too", server.get("/cvectors") == (200, vectors))
    status, vectors = server.post("/control-vectors", [{"id": 0, "scale": 200.0}])
    check("POST takes a list", status == 200 and vectors[0]["scale"] == 200, vectors)
    steered = said(server)
    check("the next answer is steered, prompt and all", steered != base, base, steered)
    status, answer = server.post("/v1/steer/completion", {
        "prompt": "a b c d", "types": ["STEERED", "DEFAULT"], "n_completion_tokens": 8,
        "control_vectors": [{"id": 0, "scale": 200.0}]})  # fmt: skip
    outputs = {one["type"]: one["output"] for one in answer["outputs"]}
    check("/v1/steer/completion", status == 200 and outputs["STEERED"] != outputs["DEFAULT"], answer)
    server.post("/control-vectors", [])
    check("what is not named is 0 again", server.get("/control-vectors")[1][0]["scale"] == 0)
    check("and nothing of it stays in a slot", said(server) == base)
    server.refused(400, "id", "POST", "/control-vectors", json.dumps([{"id": 7, "scale": 1}]))
    server.refused(400, "list", "POST", "/control-vectors", "{}")


def learned(server):
    status, answer = server.post("/v1/steer/vector", {"pairs": [["a b", "c d"], ["b a", "d c"]], "name": "letters"})
    check("/v1/steer/vector", status == 200 and answer["id"] == 1 and answer["layers"][0]["layer"] == 1, answer)
    check("is in the list", server.get("/control-vectors")[1][1]["path"] == "letters")
    check("which tells again what one writes", server.post("/v1/steer/vector", {"id": 1}) == (status, answer), answer)
    server.refused(400, "no control vector 2", "POST", "/v1/steer/vector", '{"id": 2}')
    server.refused(400, "pairs, prompts or from", "POST", "/v1/steer/vector", "{}")
    width = server.get("/v1/capabilities")[1]["model"]["width"]
    status, answer = server.post("/v1/steer/completion", {"prompt": "a", "types": ["STEERED"], "vectors": [
        {"hook": "blocks.1.hook_resid_post", "steering_vector": [1.0] * width, "strength": 2}]})  # fmt: skip
    check("a client's own numbers", status == 200 and len(answer["outputs"]) == 1, answer)
    server.refused(400, "width", "POST", "/v1/steer/completion", json.dumps({"prompt": "a", "vectors": [
        {"hook": "resid_post.1", "steering_vector": [1.0], "strength": 2}]}))  # fmt: skip


def stream(server, body):
    """The stream behind layer 1 at every position."""
    status, answer = server.post("/v1/activation/raw", {"prompt": "a b c d", "hook_point": "resid_post.1", **body})
    check("/v1/activation/raw", status == 200, answer)
    return [x for row in answer["results"][0]["activations"][0]["values"] for x in row]


def looked_at(server, path):
    """Questions see the text as steering changes it."""
    width = server.get("/v1/capabilities")[1]["model"]["width"]
    ramp = [0.5 * i for i in range(width)]
    base = stream(server, {})
    for body in ({"vectors": [{"hook": "resid_post.1", "steering_vector": ramp, "strength": 2}]},
                 {"prompts": ["a b c d"], "vectors": [{"hook": "resid_pre.2", "steering_vector": ramp, "strength": 2}]}):  # fmt: skip
        moved = stream(server, body)
        worst = max(abs(m - b - 2 * ramp[i % width]) for i, (m, b) in enumerate(zip(moved, base)))
        check("the stream holds what was added, once", worst < 1e-4, worst)
    ask = {"prompt": "a b c d", "control_vectors": [{"id": 0, "scale": 200.0}]}
    status, answer = server.post("/v1/next", {**ask, "first": 6, "count": 1, "top_n": 1})
    server.post("/control-vectors", [{"id": 0, "scale": 200.0}])
    first = said(server)[0]
    server.post("/control-vectors", [])
    check("the best next token is what a steered answer begins with", status == 200 and answer["positions"][0]["next"][0]["id"] == first, answer, first)
    status, _, content = server.request("POST", "/v1/lens/prompt", json.dumps({**ask, "top_n": 5}))
    done = subprocess.run([KEYHOLE, "lens", TINY, "-p", "a b c d", "--control-vector", path + ":200", "--json", "-q"], capture_output=True, text=True)
    routes, printed = ([json.loads(x) for x in text.splitlines()] for text in (content.decode(), done.stdout))
    last = [[c for c in frames if c["type"] == "token"] for frames in (routes, printed)]
    check("the page and the command line look at the same", status == 200 and last[0] and last[0] == last[1], done.stderr, last)


def patched(server):
    ask = {"clean": [1, 2, 3, 4, 5], "corrupted": [1, 2, 9, 4, 5], "a": 3, "b": 4, "kinds": ["pre", "heads"]}
    status, _, content = server.request("POST", "/v1/patch", json.dumps(ask))
    frames = [json.loads(line) for line in content.splitlines()]
    rows = [f for f in frames if f["type"] == "row"]
    check("/v1/patch", status == 200 and frames[0]["first"] == 2 and frames[-1]["type"] == "done", frames)
    check("its rows", len(rows) == 2 * frames[0]["layers"] and len(rows[0]["shares"]) == 3, rows)
    check("the clean stream at the changed position of layer 0 is the clean run", abs(rows[0]["shares"][0] - 1) < 1e-3, rows[0])
    server.refused(400, "5 tokens", "POST", "/v1/patch", json.dumps({"clean": [1, 2, 3, 4, 5], "corrupted": [1, 2]}))
    attributed(server, ask, rows)


def correlation(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    dot = lambda a, ma, b, mb: sum((p - ma) * (q - mb) for p, q in zip(a, b))
    return dot(x, mx, y, my) / (dot(x, mx, x, mx) * dot(y, my, y, my)) ** 0.5


def attributed(server, ask, exact):
    status, _, content = server.request("POST", "/v1/patch", json.dumps({**ask, "attribution": True, "check": True}))
    frames = [json.loads(line) for line in content.splitlines()]
    meta, done, rows = frames[0], frames[-1], frames[1:-1]
    check("/v1/patch estimates", status == 200 and meta["estimate"] and meta["cost"]["runs"] == 1 and meta["cost"]["rows"] == 15, meta)
    check("and what it saves", meta["exact_cost"]["cells"] == meta["cost"]["cells"] == meta["exact_cost"]["runs"], meta)
    estimates = [row for row in rows if row["estimate"]]
    check("the exact sweep stands behind", rows[len(estimates):] == exact and len(rows) == 2 * len(exact), rows)
    check("in the same shape", [(e["kind"], e["layer"], len(e["shares"])) for e in estimates] == [(e["kind"], e["layer"], len(e["shares"])) for e in exact], rows)
    for agreement in done["check"]["agreement"]:
        cells = [[v for row in some if row["kind"] == agreement["kind"] for v in row["shares"]] for some in (estimates, exact)]
        truth = correlation(*cells)
        check("correlation", abs(agreement["correlation"] - truth) < 1e-6 and agreement["cells"] == len(cells[0]), (agreement, truth))
        largest = max(abs(a - b) for a, b in zip(*cells))
        check("largest distance", abs(agreement["largest"] - largest) < 1e-6, (agreement, largest))
    check("strongest are the estimates'", done["strongest"][0]["share"] in [v for row in estimates for v in row["shares"]], done)
    server.refused(400, "attribution is expected", "POST", "/v1/patch", json.dumps({**ask, "check": True}))
    server.refused(400, "one of both", "POST", "/v1/patch", json.dumps({**ask, "attribution": True, "to": "logits"}))
    server.refused(501, "edits", "POST", "/v1/patch", json.dumps({**ask, "attribution": True, "edits": ["L0H1:zero"]}))


with tempfile.TemporaryDirectory() as folder:
    vector = make(folder)
    with Server(TINY, "--control-vector", vector + ":0", "-np", "2") as server:
        strengths(server)
        looked_at(server, vector)
        learned(server)
        patched(server)
finish()

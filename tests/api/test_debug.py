"""The debug routes: what they answer is what the command line prints, to the last digit; what is wrong gets a sentence;
clients that leave, leave nothing behind."""

import json
import socket
import struct
import subprocess
import tempfile

from serving import ENCODER, KEYHOLE, TINY, Server, check, finish

TEXT = "a b c d e f g a b c"
EDITS = ["L1H1:zero", "L0N3:scale=-2@1-3"]
UNSTEADY = {"seconds", "peak_bytes", "tokens_per_second", "command"}


def steady(value):
    if isinstance(value, dict):
        return {k: steady(v) for k, v in value.items() if k not in UNSTEADY}
    return [steady(v) for v in value] if isinstance(value, list) else value


def asked(server, route, body):
    """The documents of an answer."""
    status, _, content = server.request("POST", route, json.dumps(body))
    return status, [steady(json.loads(line)) for line in content.decode().splitlines() if line]


def printed(*words):
    done = subprocess.run([KEYHOLE, *words, "--json", "-q"], capture_output=True, text=True, check=False)
    return [steady(json.loads(line)) for line in done.stdout.splitlines()]


def one_truth(server):
    """Route, the members of its body beside the text, and the words that mean the same."""
    same = [
        ("/v1/lens/prompt", {"top_n": 3, "bottom_n": 2, "taps": ["before", "after"]},
         ["lens", "-k", "3", "--bottom", "2", "--tap", "before,after"]),
        ("/v1/why", {"position": 4, "most": 5}, ["why", "--position", "4", "-k", "5"]),
        ("/v1/why", {"a": 7, "alone": True}, ["why", "-a", "7", "--alone", "-k", "12"]),
        ("/v1/head", {"part": "L1H0", "a": 7, "b": 9}, ["heads", "L1H0", "-a", "7", "-b", "9"]),
        ("/v1/neurons", {"layer": 1, "most": 4}, ["neurons", "--layer", "1", "-k", "4"]),
        ("/v1/neuron", {"part": "L1N5", "top_n": 6}, ["neurons", "L1N5", "-k", "6"]),
        ("/v1/edit", {"max_tokens": 5}, ["edit", "-n", "5"]),
        ("/v1/find-heads", {"by": "previous", "most": 4}, ["heads", "--find", "previous", "-k", "4"]),
    ]  # fmt: skip
    for route, body, (verb, *words) in same:
        status, answer = asked(server, route, {"prompt": TEXT, "edits": EDITS, **body})
        edits = [w for e in EDITS for w in ("--edit", e)]
        part = words[:1] if words and words[0].startswith("L") else []
        line = printed(verb, TINY, *part, "-p", TEXT, *edits, *words[len(part) :])
        check(f"{route} answers", status == 200, status, answer)
        for document in answer + line:
            document.pop("edits", None)
        check(f"{route} and keyhole {verb} say the same", answer and answer == line, answer[-1], line[-1:])


    status, answer = asked(server, "/v1/search", {"words": ["a", 9], "by": "cosine", "most": 3})
    check("/v1/search and keyhole search say the same", answer == printed("search", TINY, "a", "9", "--by", "cosine", "-k", "3"), answer)
    check("both ends", [h["end"] for h in answer[0]["hits"]] == ["top"] * 3 + ["bottom"] * 3)


def arrays(folder):
    """A trace's arrays, flat, by their names."""
    with open(folder + "/trace.safetensors", "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    table, data, out = json.loads(data[8 : 8 + size]), data[8 + size :], {}
    for name, what in table.items():
        if name != "__metadata__":
            a, b = what["data_offsets"]
            code, width = {"F32": ("f", 4), "I64": ("q", 8), "U32": ("I", 4)}[what["dtype"]]
            out[name] = list(struct.unpack(f"<{(b - a) // width}{code}", data[a:b]))
    return out


def flattened(value):
    return [x for v in value for x in flattened(v)] if isinstance(value, list) else [value]


def activations(server):
    """By HTTP what a trace has in its files."""
    route, names = "/v1/activation/raw", "resid_post.1,blocks.0.attn.hook_q,z.1,attn_rows.1,logits"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([KEYHOLE, "trace", TINY, "-p", TEXT, "--edit", EDITS[0], "--points", names, "--first", "2", "--count", "5",
                        "-o", folder, "-q"], check=True)  # fmt: skip
        expected = arrays(folder)
    status, answer = asked(server, route, {"prompt": TEXT, "edits": EDITS[:1], "hook_point": names, "first": 2, "count": 5})
    result = answer[0]["results"][0] if status == 200 else {"activations": []}
    got = {a["point"]: a for a in result["activations"]}
    check("the points that were named", set(got) == {"resid_post.1", "q.0", "z.1", "attn_rows.1", "logits"}, status, answer[0].keys())
    check("their positions", all(a["token_indices"] == [2, 3, 4, 5, 6] for a in got.values()))
    for name in ("resid_post.1", "q.0", "z.1", "logits"):
        a, b = flattened(got[name]["values"]), expected[name]
        check(f"{name} is that of the trace", len(a) == len(b) and max(abs(x - y) for x, y in zip(a, b)) < 1e-6)
    rows = [head for row in got["attn_rows.1"]["values"] for head in row]
    check("keys too", [k for r in rows for k in r["idx"]] == expected["attn_rows.1.idx"])
    check("and weights", all(abs(x - y) < 1e-6 for x, y in zip([w for r in rows for w in r["w"]], expected["attn_rows.1.w"])))
    mass = [(r["mass"], m) for r, m in zip(rows, expected["attn_rows.1.mass"])]
    check("and mass, null where it was not measured", all(m != m if x is None else abs(x - m) < 1e-6 for x, m in mass))
    prompts = [TEXT, "x y"]
    status, answer = asked(server, route, {"prompts": prompts, "hook_point": "residual_stream", "type": "final_output_token", "model": "any"})
    results = answer[0]["results"]
    check("a result for each prompt", status == 200 and len(results) == 2 and answer[0]["dtype"] == "float32")
    for prompt, r in zip(prompts, results):
        ids = [t["id"] for t in server.post("/v1/text", {"prompt": prompt})[1]["tokens"]]
        last = [a["token_indices"] for a in r["activations"]]
        check("its last token, every layer", r["token_ids"] == ids and last == [[len(ids) - 1]] * 2 and len(r["token_strings"]) == len(ids))
        check("by layer", [a["layer"] for a in r["activations"]] == [0, 1])
    one = asked(server, route, {"prompts": prompts, "layers": [1]})[1][0]["results"]
    check("of the layers that are asked for", [r["activations"] for r in one] == [r["activations"][1:] for r in results])
    cost = asked(server, route, {"prompt": TEXT, "type": "all_tokens", "hook_point": "logits", "cost_only": True})[1][0]
    check("the cost before it is paid", cost["results"] == [] and cost["cost"]["bytes"] > 0 and cost["cost"]["points"] == 1)
    long = {"tokens": [5] * 100, "type": "all_tokens", "hook_point": "mlp_act,attn_rows", "limit": 1000}
    for body, word in [(long, "1000"), ({"prompts": []}, "prompts"), ({"prompts": ["x"] * 17}, "16"), ({"prompts": [7]}, "prompt"),
                       ({"prompt": "x", "hook_point": "hook_attn_in"}, "no point"), ({"prompt": "x", "hook_point": "blocks.0.hook_attn_in"}, "no point"),
                       ({"prompt": "x", "layers": [2]}, "layers"), ({"prompt": "x", "type": "mean"}, "type"), ({"prompt": "x", "limit": 1 << 40}, "limit"),
                       ({"prompt": "x", "hook_point": "z.0", "layers": [1]}, "layers"), ({"prompt": "x", "first": 900}, "position"),
                       ({"prompt": "x", "type": "final_output_token", "first": 0}, "first")]:  # fmt: skip
        status, answer = asked(server, route, body)
        said = answer[0].get("error", {}).get("message", "")
        check(f"{route} {str(body)[:60]}: 400 and a sentence", status == 400 and word in said, status, said)


def shapes(server):
    status, frames = asked(server, "/v1/lens/prompt", {"prompt": TEXT, "num_completion_tokens": 3})
    kinds = [f["type"] for f in frames]
    check("frames", kinds[:2] == ["meta", "prompt"] and kinds[-1] == "done" and set(kinds[2:-1]) == {"token"})
    check("generated ones are marked", [f["is_generated"] for f in frames[2:-1]].count(True) == 3)
    check("only the first has no surprise", [f["surprise"] is None for f in frames[2:-1]].count(True) == 1)
    status, frames = asked(server, "/v1/lens/prompt", {"prompt": TEXT, "cost_only": True})
    check("a cost is told before it is paid", [f["type"] for f in frames] == ["meta", "prompt", "done"])
    check("and is one", frames[0]["cost"]["cells"] > 0 and frames[0]["cost"]["operations"] > 0)
    status, answer = server.get("/v1/capabilities")
    paths, features = server.get("/openapi.json")[1]["paths"], answer["features"]
    check("all routes are listed, each once", sorted(answer["routes"]) == sorted(paths), set(paths) ^ set(answer["routes"]))
    want = {"generate": True, "embeddings": False, "inspect": True, "steer": True, "sessions": False, "page": True}
    check("and what they can do", {k: v for k, v in features.items() if k != "labels"} == want, features)
    check("labels where there is a file for them", features["labels"] == (server.get("/v1/labels")[0] == 200))
    status, answer = server.get("/v1/checks")
    check("the identities hold", status == 200 and all(c["passed"] is not False for c in answer["checks"]), answer)
    check("all five", len(answer["checks"]) == 5)
    status, why = asked(server, "/v1/why", {"prompt": TEXT, "most": 10000})
    parts = why[0]
    check("parts sum to the logit", abs(parts["total"] - parts["sum"]) < 1e-3 * (1 + abs(parts["total"])), parts["leftover"])
    listed = sum(p["value"] for p in parts["parts"])
    check("all parts are listed", abs(listed + parts["others"] + parts["embed"] + parts["bias"] - parts["sum"]) < 1e-6)
    status, answer = asked(server, "/v1/edit", {"prompt": TEXT, "edits": [], "max_tokens": 6})
    check("no edits, no difference", answer[-1]["divergence"] is None and answer[-1]["base"] == answer[-1]["edited"])
    check("and no distance", all(f["kl"] == 0 for f in answer if f["type"] == "compared"))


def mistakes(server):
    wrong = [
        ("/v1/why", {}, 400, "prompt"), ("/v1/why", {"prompt": 5}, 400, "prompt"),
        ("/v1/why", {"tokens": [1, -3]}, 400, "tokens"), ("/v1/why", {"tokens": []}, 400, "token"),
        ("/v1/why", {"prompt": TEXT, "position": 99999}, 400, "position"), ("/v1/why", {"prompt": TEXT, "a": "a b c"}, 400, "tokens"),
        ("/v1/why", {"prompt": TEXT, "edits": ["L99H0:zero"]}, 400, "L99H0"), ("/v1/why", {"prompt": TEXT, "edits": "x"}, 400, "edits"),
        ("/v1/why", {"prompt": TEXT, "edits": ["L0H0:zero!"]}, 400, "zero"), ("/v1/head", {"prompt": TEXT, "part": "L0N1"}, 400, "head"),
        ("/v1/head", {"prompt": TEXT}, 400, "part"), ("/v1/neuron", {"part": "L0N999999"}, 400, "L0N999999"),
        ("/v1/neuron", {"part": "L0N999999999999"}, 400, "L0N999999999999"),
        ("/v1/lens/prompt", {"prompt": TEXT, "taps": ["middle"]}, 400, "taps"),
        ("/v1/lens/prompt", {"prompt": TEXT, "layers": [0, 2]}, 400, "layers"), ("/v1/lens/prompt", {"prompt": TEXT, "top_n": 0}, 400, "top_n"),
        ("/v1/lens/prompt", {"prompt": TEXT, "first": 500}, 400, "position"), ("/v1/neurons", {"prompt": TEXT, "by": "size"}, 400, "by"),
        ("/v1/neurons", {"prompt": TEXT, "by": "value"}, 400, "token"), ("/v1/search", {"words": []}, 400, "words"),
        ("/v1/search", {"words": ["a b"]}, 400, "tokens"), ("/v1/search", {"words": ["a"], "by": "size"}, 400, "size"),
        ("/v1/find-heads", {"prompt": TEXT, "query": 400}, 400, "query"), ("/v1/edit", {"prompt": TEXT, "max_tokens": 0}, 400, "max_tokens"),
    ]  # fmt: skip
    for route, body, http, word in wrong:
        status, answer = asked(server, route, body)
        said = answer[0].get("error", {}).get("message", "") if answer else ""
        check(f"{route} {body}: {http} and a sentence", status == http and word in said, status, said)


def leave(server):
    """Half a request's answer, then the next question."""
    for _ in range(20):
        body = json.dumps({"prompt": TEXT * 3, "top_n": 50}).encode()
        with socket.create_connection((server.host, server.port)) as s:
            s.sendall(b"POST /v1/lens/prompt HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body) + body)  # fmt: skip
            s.recv(64)
    check("the next is answered", asked(server, "/v1/why", {"prompt": TEXT})[0] == 200)


def main():
    with Server("-m", TINY) as server:
        one_truth(server)
        activations(server)
        shapes(server)
        mistakes(server)
        leave(server)
        check("it ends well", server.end() == 0)
    with Server("-m", ENCODER) as server:
        status, answer = asked(server, "/v1/why", {"prompt": TEXT})
        check("an encoder is refused by name", status == 501 and "bert" in answer[0]["error"]["message"], status, answer)
        status, answer = server.get("/v1/capabilities")
        check("and its page is told why", status == 200 and answer["inspect"] is False and answer["why_not"], answer)
        f = answer["features"]
        check("what is refused is no feature", f["embeddings"] and not f["inspect"] and not f["generate"] and not f["steer"], f)
    finish()


main()

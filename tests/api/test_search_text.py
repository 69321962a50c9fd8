"""Search by text: neurons by the tokens at the ends of their value vectors, and labels, in the order of a BM25 that is computed
here from the neurons' cards; the table is made layer by layer, by whoever asks first, and belongs to one model. Clusters as the route and the command line give them."""

import collections
import json
import math
import os
import re
import sqlite3
import subprocess
import tempfile
import threading

from serving import KEYHOLE, TINY, Server, check, finish

OTHER = "tests/golden/families/gpt2"
K1, B, TOKENS = 1.2, 0.75, 20


def keyhole(*words, data=None):
    environment = {k: v for k, v in os.environ.items() if k not in ("XDG_DATA_HOME", "HOME")}
    if data:
        environment["XDG_DATA_HOME"] = data
    return subprocess.run([KEYHOLE, *words], capture_output=True, text=True, env=environment)


def words_of(text):
    """Letters and digits; the tones of emoji are letters to SQLite."""
    return re.findall("(?:[^\\W_]|[\U0001f3fb-\U0001f3ff])+", text.lower())


def bm25(documents, query):
    """{key: score} of the documents {key: text} that have any of the words."""
    lists = {key: words_of(text) for key, text in documents.items()}
    counts = {key: collections.Counter(words) for key, words in lists.items()}
    mean = sum(map(len, lists.values())) / len(lists)
    scores = collections.defaultdict(float)
    for word in query:
        (term,) = words_of(word)
        having = sum(term in c for c in counts.values())
        weight = max(math.log((len(lists) - having + 0.5) / (having + 0.5)), 1e-6)
        for key, count in counts.items():
            if n := count[term]:
                scores[key] += weight * n * (K1 + 1) / (n + K1 * (1 - B + B * len(lists[key]) / mean))
    return scores


def near(a, b):
    return abs(a - b) <= 1e-9 * max(1, abs(b))


def agrees(what, hits, scores, key):
    """The hits are the best of the scores, best first; equals may stand in any order here."""
    best = sorted(scores.values(), reverse=True)[: len(hits)]
    good = len({key(h) for h in hits}) == len(hits) and all(near(h["score"], s) for h, s in zip(hits, best))
    check(what, good and all(near(h["score"], scores[key(h)]) for h in hits), [(key(h), h["score"]) for h in hits[:5]], best[:5])


def frames(server, body):
    status, headers, text = server.request("POST", "/v1/search/table", body)
    check("frames", status == 200 and headers["Content-Type"] == "application/x-ndjson", status, text[:200])
    return [json.loads(line) for line in text.decode().splitlines()]


def find(server, text, **more):
    status, answer = server.post("/v1/search/text", {"text": text, **more})
    check(f"{text!r} is answered", status == 200 and list(answer) == ["table", "labels", "hits", "seconds"], answer)
    return answer


def cards(server, model):
    """Both ends of every value vector, as the cards of neurons have them."""
    ends = {}
    for layer in range(model["layers"]):
        for neuron in range(model["ff_width"]):
            part = f"L{layer}N{neuron}"
            card = server.post("/v1/neuron", {"part": part, "top_n": TOKENS, "neighbours": 0})[1]
            for end in ("top", "bottom"):
                ends[part, end] = card["value"][end]
    return ends


def making(server, folder, model):
    neurons = model["layers"] * model["ff_width"]
    cost = frames(server, {"layers": 0})
    check("the cost comes before", [f["type"] for f in cost] == ["cost", "done"] and cost[0]["ready"] == 0
          and cost[0]["missing"] == neurons and cost[0]["bytes"] > 0 and cost[0]["seconds"] > 0, cost)  # fmt: skip
    check("and makes nothing", os.listdir(folder) == [])
    check("nothing is found", find(server, "a")["hits"] == [])
    one = frames(server, {"layers": 1})
    check("a layer", [f["type"] for f in one] == ["cost", "layer", "done"] and one[-1]["ready"] == 1, one)
    hits = find(server, "a t e o", most=1000)
    check("what is ready can be asked", hits["table"]["ready"] == 1 and {h["part"][:3] for h in hits["hits"]} == {"L0N"}, hits["table"])
    rest = frames(server, {})
    check("the rest", rest[-1]["ready"] == model["layers"] and rest[-1]["neurons"] == neurons and rest[-1]["missing"] == 0, rest)
    check("it is not made twice", [f["type"] for f in frames(server, {})] == ["cost", "done"])
    (file,) = os.listdir(folder)
    check("beside the labels, by the model's identity", file == f"tokens-{model['identity']}.sqlite", file)
    return os.path.join(folder, file)


def asking(server, ends):
    documents = {key: " ".join(t["text"] for t in tokens) for key, tokens in ends.items()}
    counts = collections.Counter(w for text in documents.values() for w in set(words_of(text)))
    common = [w for w, _ in counts.most_common(12)]
    check("there are words to look for", len(common) == 12 and counts[common[0]] > 5, counts)
    key = lambda hit: (hit["part"], hit["end"])  # noqa: E731
    for query in [[w] for w in common] + [common[:2], common[3:9], [common[0].upper()], [f" {common[1]} "], [common[2], "nowhere"]]:
        answer = find(server, " ".join(query), most=1000)
        scores = bm25(documents, query)
        check(f"all of {query}", len(answer["hits"]) == len(scores), len(answer["hits"]), len(scores))
        agrees(f"BM25 of {query}", answer["hits"], scores, key)
        check("tokens are the card's", all(h["tokens"] == ends[key(h)] for h in answer["hits"]), answer["hits"][:1])
        agrees(f"the best three of {query}", find(server, " ".join(query), most=3)["hits"], scores, key)
        for end in ("top", "bottom"):
            hits = find(server, " ".join(query), most=1000, ends=end)["hits"]
            check(f"one end of {query}", {key(h) for h in hits} == {k for k in scores if k[1] == end}, end)
    forms = {form for tokens in ends.values() for t in tokens for form in [t["text"]] if t["text"].strip() != t["text"] and words_of(form)}
    check("some tokens begin with a space or a line", forms, forms)
    for form in list(forms)[:6]:
        want = {k for k, text in documents.items() if set(words_of(form)) & set(words_of(text))}
        for asked in (form, form.strip(), form.strip().upper()):
            check(f"{asked!r} finds {form!r}", want <= {key(h) for h in find(server, asked, most=1000)["hits"]})
    plain = find(server, common[0], most=1000)["hits"]
    for hostile in [f'"{common[0]}', f'{common[0]}"', f"{common[0]} *", f"^ {common[0]}", f"{common[0]}*", f"NEAR({common[0]}", f"-{common[0]}",
                    f"({common[0]}", f'") OR ("{common[0]}', f"text:{common[0]}", f"{common[0]};"]:  # fmt: skip
        hits = find(server, hostile, most=1000)["hits"]
        if "NEAR" not in hostile and "text" not in hostile and "OR" not in hostile:
            check(f"{hostile!r} is the word alone", hits == plain, len(hits), len(plain))
    check("signs alone are no words", find(server, "* - \"\"\" ^")["hits"] == [])


def labelled(server):
    texts = {"L0N1": "capital cities of France", "L1N2": "Paris, the city", "L0H1": "copies the CITY before; paris paris", "L1N9": "élan don't"}
    for part, text in texts.items():
        server.json("PUT", "/v1/labels", {"part": part, "text": text})
    for query in (["city"], ["PARIS", "France"], ["élan"], ["cities"]):
        labels = find(server, " ".join(query))["labels"]
        scores = bm25(texts, query)
        check(f"labels with {query}", len(labels) == len(scores) and all(x["text"] == texts[x["part"]] for x in labels), labels)
        agrees(f"BM25 of labels with {query}", labels, scores, lambda x: x["part"])
    check("a word with a sign in it is a phrase", [x["part"] for x in find(server, "don't")["labels"]] == ["L1N9"])
    check("marks of letters count", find(server, "elan")["labels"] == [])
    server.json("PUT", "/v1/labels", {"part": "L0N1", "text": "bridges"})
    check("a label is found as soon as it is written", [x["part"] for x in find(server, "Bridges")["labels"]] == ["L0N1"])
    check("and the old one no more", find(server, "cities")["labels"] == [])


def mistakes(server):
    for body, sentence in [({}, "text"), ({"text": " ,\n"}, "text"), ({"text": 7}, "text"), ({"text": "x" * 4097}, "4096"), ({"text": "a " * 65}, "64"),
                           ({"text": "a", "most": 0}, "most"), ({"text": "a", "ends": "left"}, "left")]:  # fmt: skip
        server.refused(400, sentence, "POST", "/v1/search/text", body)
    server.refused(400, "layers", "POST", "/v1/search/table", {"layers": -1})
    check("they are in the routes", {"/v1/search/text", "/v1/search/table"} <= set(server.get("/v1/capabilities")[1]["routes"]))


def command_line(server, data):
    folder = os.path.join(data, "keyhole")
    cost = keyhole("search", TINY, "--text", "a", "--cost", "--json", data=data)
    check("--cost", [json.loads(x)["type"] for x in cost.stdout.splitlines()] == ["cost", "done"] and not os.path.exists(folder), cost)
    got = keyhole("search", TINY, "--text", "a t", "-k", "7", "--json", data=data)
    own, theirs = json.loads(got.stdout), find(server, "a t", most=7)
    for answer in (own, theirs):
        answer.pop("seconds"), answer.pop("labels")
    check("the first question makes the table, and says so", "once: about" in got.stderr, got.stderr)
    check("keyhole search --text and /v1/search/text say the same", own == theirs, own["hits"][:1], theirs["hits"][:1])
    got = keyhole("search", TINY, "--text", "a t", data=data)
    check("then it is there", got.returncode == 0 and "once" not in got.stderr and own["hits"][0]["part"] in got.stdout, got)
    for words, code, sentence in [(["x", "--text", "a"], 2, "--text"), (["x", "--cost"], 2, "--cost"), ([], 2, "tokens")]:
        got = keyhole("search", TINY, *words, data=data)
        check("wrong use", got.returncode == code and sentence in got.stderr, words, got)
    keyhole("search", OTHER, "--text", "a", "-q", data=data)
    check("another model has a table of its own", len(os.listdir(folder)) == 2, os.listdir(folder))


def clusters(server):
    """What the route adds to tests/model/test_clusters.c: frames, members, the same on the command line."""
    body = {"clusters": 6, "first_layer": 1, "layers": 1, "rounds": 9, "seed": 4}
    status, _, text = server.request("POST", "/v1/clusters", body)
    got = [json.loads(line) for line in text.decode().splitlines()]
    *rounds, done = got
    check("rounds, then all", status == 200 and [f["round"] for f in rounds] == list(range(1, done["rounds"] + 1)) and done["type"] == "done", got)
    check("no round is worse", all(a["cosine"] <= b["cosine"] + 1e-6 for a, b in zip(rounds, rounds[1:])) and rounds[-1]["cosine"] == done["cosine"])
    sizes = [c["size"] for c in done["clusters"]]
    check("every neuron once, largest first", sum(sizes) == done["neurons"] and sizes == sorted(sizes, reverse=True) and len(sizes) == 6, sizes)
    check("nearest members of that layer", all(len(c["members"]) == min(10, c["size"]) and c["members"][0]["part"].startswith("L1N") for c in done["clusters"]))
    check("both ends", all(c["top"][0]["logit"] > c["bottom"][0]["logit"] and len(c["top"]) == 10 for c in done["clusters"]))
    printed = keyhole("search", TINY, "--clusters", "6", "--layer", "1", "--rounds", "9", "--seed", "4", "--json")
    own = [json.loads(line) for line in printed.stdout.splitlines()]
    done.pop("seconds"), own[-1].pop("seconds")
    check("keyhole search --clusters and /v1/clusters say the same", own == got, own[-1])
    for wrong, sentence in [({}, "clusters"), ({"clusters": 0}, "clusters"), ({"clusters": 4097}, "clusters"), ({"clusters": 113}, "113 of 112"),
                            ({"clusters": 2, "first_layer": 2}, "first_layer"), ({"clusters": 2, "first_layer": 1, "layers": 2}, "layers 1 to 2")]:  # fmt: skip
        server.refused(400, sentence, "POST", "/v1/clusters", wrong)


def together(folder):
    """Two servers that make it at once."""
    words = (TINY, "--labels", os.path.join(folder, "labels.sqlite"))
    with Server(*words) as one, Server(*words) as two:
        threads = [threading.Thread(target=frames, args=(server, {})) for server in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check("both see one whole table", find(one, "a")["hits"] == find(two, "a")["hits"] != [])
        (file,) = os.listdir(folder)
        with sqlite3.connect(os.path.join(folder, file)) as db:
            check("it is sound", db.execute("PRAGMA integrity_check").fetchall() == [("ok",)])
            check("each end once", db.execute("SELECT count(*) FROM neuron").fetchone()[0] == 2 * find(one, "a")["table"]["neurons"])
        with open(os.path.join(folder, file), "wb") as strange:
            strange.write(b"no database at all, but text " * 200)
        one.refused(422, "top tokens", "POST", "/v1/search/text", {"text": "a"})


with tempfile.TemporaryDirectory() as main_folder:
    main_folder = os.path.join(main_folder, "deep")
    os.mkdir(main_folder)
    with Server(TINY, "--labels", os.path.join(main_folder, "labels.sqlite")) as main:
        if main.get("/v1/labels")[0] == 501:
            main.refused(501, "built without SQLite", "POST", "/v1/search/text", {"text": "a"})
            finish()
        main_model = main.get("/v1/capabilities")[1]["model"]
        making(main, main_folder, main_model)
        asking(main, cards(main, main_model))
        labelled(main)
        mistakes(main)
        clusters(main)
        with tempfile.TemporaryDirectory() as main_data:
            command_line(main, main_data)
        check("it ends well", main.end() == 0)
    with tempfile.TemporaryDirectory() as shared:
        together(shared)
finish()

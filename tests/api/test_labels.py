"""Labels of parts and saved views: one SQLite file, written by several servers and the command line, exported and merged as
lines; what is wrong gets a sentence, and no file of somebody else is touched."""

import json
import os
import sqlite3
import stat
import subprocess
import tempfile
import threading
import time
import urllib.parse

from serving import KEYHOLE, TINY, Server, check, finish

OTHER = "tests/golden/families/gpt2"


def keyhole(*words, data=None, **more):
    environment = {k: v for k, v in os.environ.items() if k not in ("XDG_DATA_HOME", "HOME")}
    if data:
        environment["XDG_DATA_HOME"] = data
    return subprocess.run([KEYHOLE, *words], capture_output=True, text=True, env=environment, **more)


def put(server, part, text):
    return server.json("PUT", "/v1/labels", {"part": part, "text": text})


def labels(server):
    return {one["part"]: one["text"] for one in server.get("/v1/labels")[1]["labels"]}


def exported(server):
    status, headers, text = server.request("GET", "/v1/labels/export")
    check("/v1/labels/export", status == 200 and headers["Content-Type"] == "application/x-ndjson", status, text[:200])
    return text


def imported(server, text):
    return server.json("POST", "/v1/labels/import", text)


def round_trip(server, file):
    check("none at first", server.get("/v1/labels") == (200, {"labels": []}))
    check("in no view either", server.get("/v1/views") == (200, {"views": []}))
    check("nor exported", exported(server) == b"")
    check("who only reads makes no file", not os.path.exists(os.path.dirname(file)))
    before = int(time.time())
    status, one = put(server, "l1d3", "countries")
    check("PUT", status == 200 and list(one) == ["part", "text", "time"] and one["part"] == "L1N3", one)
    check("its time is now", before <= one["time"] <= time.time() + 2)
    check("the file is its owner's alone", stat.S_IMODE(os.stat(file).st_mode) == 0o600, oct(os.stat(file).st_mode))
    status, answer = server.get("/v1/labels")
    check("GET", status == 200 and answer == {"labels": [one]}, answer)
    status, again = put(server, "L1N3", "capitals")
    check("a new text is newer, in the same second too", status == 200 and again["time"] > one["time"], one, again)
    hard = 'a "quote", a \\ and\na line; \'); DROP TABLE label; -- Ä🙂'
    for part, text in {"L0H1": hard, "1_mlp_out": "x" * 4096, "embed": "start", "L0N9": "gone"}.items():
        check(f"PUT {part}", put(server, part, text)[0] == 200)
    status, gone = put(server, "L0N9", "")
    check("an empty text takes it away", status == 200 and "L0N9" not in labels(server))
    want = {"L1N3": "capitals", "L0H1": hard, "1_mlp_out": "x" * 4096, "embed": "start"}
    check("all of them", labels(server) == want)
    text = exported(server)
    lines = [json.loads(line) for line in text.decode().splitlines()]
    parts = [line["part"] for line in lines]
    check("a line each", {x["part"]: x["text"] for x in lines} == want and all(list(x) == ["part", "text", "time"] for x in lines))
    check("sorted as bytes are", parts == sorted(parts) and text.endswith(b"\n"), parts)
    return text


def merging(server, text):
    with tempfile.TemporaryDirectory() as folder, Server(TINY, "--labels", os.path.join(folder, "b.sqlite")) as second:
        status, answer = imported(second, text)
        check("import", status == 200 and answer == {"labels": 4, "views": 0, "changed": 4}, answer)
        check("export gives the same bytes", exported(second) == text)
        check("again changes nothing", imported(second, text)[1] == {"labels": 4, "views": 0, "changed": 0} and exported(second) == text)
        put(second, "L1N3", "mine")
        check("the newer one stays", imported(second, text)[1]["changed"] == 0 and labels(second)["L1N3"] == "mine")
        put(second, "embed", "")
        check("what was taken away stays away", imported(second, text)[1]["changed"] == 0 and "embed" not in labels(second))
        check("and travels back", imported(server, exported(second))[1]["changed"] == 1 and labels(server)["L1N3"] == "mine")

        a, b = ('{"part":"L0N1","text":"%s","time":100}\n' % t for t in ("alpha", "beta"))
        for order in (a + b, b + a):
            with Server(TINY, "--labels", os.path.join(folder, f"{order[25]}.sqlite")) as third:
                imported(third, order)
                check("of equal times the same wins in any order", labels(third) == {"L0N1": "beta"}, order)

        kept = exported(second)
        good = '{"part":"L0N0","text":"y"}\n'
        for lines, sentence in [
            (good + "{", "line 2"),
            (good + "\n \t\r\n7", "line 4"),
            (good + "[]", "line 2"),
            (good + '{"part":"L9N0","text":"x"}', "line 2"),
            (good + '{"part":"L0N0"}', "line 2: text"),
            (good + '{"text":"x"}', "line 2: part"),
            (good + '{"part":"L0N0","text":"x","time":-1}', "line 2: time"),
            (good + '{"part":"L0N0","text":"x","time":"now"}', "line 2: time"),
            (good + '{"part":"L0N0","text":"%s"}' % ("x" * 4097), "4096"),
            (good + '{"part":"L0N0","text":"\\u0000"}', "line 2"),
            (b"\0\xff\xfe" + good.encode(), "line 1"),
            (good + "SQLite format 3", "line 2"),
        ]:
            second.refused(400, sentence, "POST", "/v1/labels/import", lines)
        check("all or nothing", exported(second) == kept)
        check("nothing is something that can be merged", imported(second, "")[1] == {"labels": 0, "views": 0, "changed": 0})
        check("without a last end of line, with other ends", imported(second, "\r\n" + good.strip() + "\r\n")[1]["labels"] == 1)


def views(server):
    for name, query in [("first", "?prompt=a%20b&L=1&D=3"), ("Ä 🙂/'\"; --", "?x"), ("x" * 80, "?"), ("🙂" * 80, "?y"), ("..", "?z")]:
        path = "/v1/views/" + urllib.parse.quote(name, safe="")
        if "/" in name:
            server.refused(404, "no such path", "PUT", path, {"query": query})
            continue
        status, one = server.json("PUT", path, {"query": query})
        check("PUT of a view", status == 200 and one["name"] == name and one["query"] == query, one)
        check("GET of it", server.get(path) == (200, one))
    status, answer = server.get("/v1/views")
    names = [v["name"] for v in answer["views"]]
    check("all views", status == 200 and names == sorted(names) and len(names) == 4, names)
    check("a second time replaces", server.json("PUT", "/v1/views/first", {"query": "?q"})[1]["query"] == "?q")
    check("DELETE", server.json("DELETE", "/v1/views/first") == (200, {"name": "first", "deleted": True}))
    for method in ("GET", "DELETE"):
        server.refused(404, 'there is no view "first"', method, "/v1/views/first")
    for body, sentence in [({}, "query"), ({"query": 7}, "query"), ({"query": "javascript:alert(1)"}, "query"), ({"query": ""}, "query"),
                           ({"query": "http://evil.example/?x"}, "query"), ({"query": "?" + "x" * 65536}, "65536")]:  # fmt: skip
        server.refused(400, sentence, "PUT", "/v1/views/v", body)
    for name in ("x" * 81, "🙂" * 81, "%01", "%00", "a%0Ab", "%ff"):
        quoted = name if name.startswith(("%", "a%")) else urllib.parse.quote(name)
        server.refused(400, "name of a view", "PUT", f"/v1/views/{quoted}", {"query": "?x"})
    text = exported(server)
    lines = [line for line in map(json.loads, text.splitlines()) if "view" in line]
    check("exported behind the labels", [line["view"] for line in lines] == [v["name"] for v in server.get("/v1/views")[1]["views"]], lines)
    with tempfile.TemporaryDirectory() as folder, Server(TINY, "--labels", os.path.join(folder, "views.sqlite")) as other:
        check("and imported", imported(other, text)[1]["views"] == len(lines) > 0 and exported(other) == text)
        kept = {**lines[0], "query": "?newer", "time": lines[0]["time"] + 1}
        check("the newer view stays", [imported(other, json.dumps(line))[1]["changed"] for line in (kept, lines[0])] == [1, 0])
        check("under its name", other.get("/v1/views/" + urllib.parse.quote(kept["view"], safe=""))[1]["query"] == "?newer")
        for line in ({"view": "", "query": "?x"}, {"view": "x", "query": "x"}, {"view": "x"}, {"view": 7, "query": "?x"}):
            other.refused(400, "line 1", "POST", "/v1/labels/import", json.dumps(line))
    server.refused(404, "no such path", "PUT", "/v1/views/" + "x" * 600, {"query": "?x"})
    server.refused(405, "another method", "PUT", "/v1/views", {"query": "?x"})


def mistakes(server):
    for body, sentence in [
        ({}, "part"),
        ({"part": 7, "text": "x"}, "part"),
        ({"part": "nonsense", "text": "x"}, ""),
        ({"part": "L99N0", "text": "x"}, ""),
        ({"part": "L0N99999999", "text": "x"}, ""),
        ({"part": "L0N0'; DROP TABLE label; --", "text": "x"}, ""),
        ({"part": "L0N0"}, "text"),
        ({"part": "L0N0", "text": ["x"]}, "text"),
        ({"part": "L0N0", "text": "x" * 4097}, "at most 4096"),
        ({"part": "L0N0", "text": "ä" * 2049}, "at most 4096"),
        ([], "object"),
    ]:
        server.refused(400, sentence, "PUT", "/v1/labels", body)
    server.refused(403, "origin", "PUT", "/v1/labels", {"part": "L0N0", "text": "x"}, {"Origin": "http://evil.example"})
    server.refused(403, "origin", "POST", "/v1/labels/import", "{}", {"Origin": "http://evil.example", "Content-Type": "text/plain"})
    server.refused(403, "origin", "DELETE", "/v1/views/x", None, {"Origin": "http://evil.example"})
    status, headers, _ = server.request("POST", "/v1/labels", "{}")
    check("Allow has both", status == 405 and headers["Allow"] == "GET, PUT", headers["Allow"])


def together(file):
    """Two servers and four clients on one file: nothing is lost."""
    with Server(TINY, "--labels", file) as one, Server(TINY, "--labels", file) as two:
        bad = []

        def write(server, first):
            for i in range(first, first + 12):
                status, answer = put(server, f"L0N{i}", f"label {i}")
                if status != 200:
                    bad.append(answer)

        threads = [threading.Thread(target=write, args=(s, 12 * i)) for i, s in enumerate([one, two, one, two])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        want = {f"L0N{i}": f"label {i}" for i in range(48)}
        check("what both wrote, both see", not bad and labels(one) == want == labels(two), bad, len(labels(one)))
        check("both end well", one.end() == 0 and two.end() == 0)


def quantised(folder):
    """Labels of the same model in another file are offered; another model's are not."""
    file, small = os.path.join(folder, "q.sqlite"), os.path.join(folder, "small.gguf")
    made = keyhole("convert", TINY, "-o", small, "--type", "q8_0", "-q")
    check("another quantisation", made.returncode == 0, made.stderr)
    with Server(TINY, "--labels", file) as one:
        put(one, "L0N1", "here")
        put(one, "L0N2", "there")
        put(one, "L0N3", "taken away")
        identity = one.get("/v1/capabilities")[1]["model"]["identity"]
    with Server(small, "--labels", file) as two:
        put(two, "L0N2", "own")
        put(two, "L0N3", "")
        got = [{k: v for k, v in x.items() if k != "time"} for x in two.get("/v1/labels")[1]["labels"]]
        check("own ones, then those that are offered", got == [{"part": "L0N2", "text": "own"},
              {"part": "L0N1", "text": "here", "from": identity}], got)  # fmt: skip
        check("which are not exported", [json.loads(x)["part"] for x in exported(two).splitlines()] == ["L0N2"])
        check("views are the file's own", two.get("/v1/views")[1] == {"views": []})
    with Server(OTHER, "--labels", file) as three:
        check("another model has none of it", three.get("/v1/labels")[1] == {"labels": []})


def strange_files(folder):
    wrong = os.path.join(folder, "text")
    with open(wrong, "w") as out:
        out.write("this is no database, but somebody's text\n" * 40)
    foreign = os.path.join(folder, "foreign.sqlite")
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE label (x)")
    newer = os.path.join(folder, "newer.sqlite")
    label = {"part": "L0N0", "text": "x"}
    for file, status, sentence in [(wrong, 422, "text"), (foreign, 422, "another program's"), (folder, 500, ""),
                                   (os.path.join(wrong, "x.sqlite"), 500, "cannot be written"),
                                   ("/proc/nowhere/labels.sqlite", 500, "cannot be written"),
                                   ("/dev/full", 500, "")]:  # fmt: skip
        kept = open(file, "rb").read() if os.path.isfile(file) else None
        with Server(TINY, "--labels", file) as server:
            for method, path, body in [("PUT", "/v1/labels", label), ("POST", "/v1/labels/import", json.dumps(label)),
                                       ("PUT", "/v1/views/x", {"query": "?x"})]:  # fmt: skip
                server.refused(status, sentence, method, path, body)
            check("it goes on", server.get("/health")[0] == 200)
        check(f"{file} is as it was", kept is None or open(file, "rb").read() == kept)
    with Server(TINY, "--labels", newer) as server:
        put(server, "L0N0", "x")
        with sqlite3.connect(newer) as db:
            db.execute("PRAGMA user_version = 2")
        server.refused(422, "newer keyhole", "GET", "/v1/labels")
        server.refused(422, "newer keyhole", "PUT", "/v1/labels", label)
    locked = os.path.join(folder, "read-only")
    os.mkdir(locked, 0o500)
    if not os.access(locked, os.W_OK):
        with Server(TINY, "--labels", os.path.join(locked, "x.sqlite")) as server:
            server.refused(500, "Permission denied", "PUT", "/v1/labels", label)
            check("nothing is read from nothing", server.get("/v1/labels") == (200, {"labels": []}))


def command_line(folder):
    data, lines = os.path.join(folder, "data"), os.path.join(folder, "lines.jsonl")
    with open(lines, "w") as out:
        out.write('{"part":"L1N2","text":"Ländernamen\\u001b[2J","time":5}\n{"part":"L0H0","text":"first","time":7}\n')
    got = keyhole("labels", TINY, "--import", lines, data=data)
    check("--import", got.returncode == 0 and "2 labels" in got.stderr, got)
    check("at its usual place", os.path.isfile(os.path.join(data, "keyhole", "labels.sqlite")))
    got = keyhole("labels", TINY, data=data)
    check("a table", "Ländernamen" in got.stdout and "L0H0" in got.stdout and "\x1b" not in got.stdout, got.stdout)
    got = keyhole("labels", TINY, "--json", data=data)
    check("--json", [x["part"] for x in json.loads(got.stdout)["labels"]] == ["L0H0", "L1N2"], got.stdout)
    out = os.path.join(folder, "out.jsonl")
    check("--export", keyhole("labels", TINY, "--export", out, data=data).returncode == 0)
    with open(out) as one, open(lines) as two:
        check("is what came in, sorted", [json.loads(x) for x in one] == sorted(map(json.loads, two), key=lambda x: x["part"]))
    check("- is standard output", keyhole("labels", TINY, "--export", "-", data=data).stdout.startswith('{"part":"L0H0"'))
    with Server(TINY, "--labels", os.path.join(data, "keyhole", "labels.sqlite")) as server:
        check("a server sees them", set(labels(server)) == {"L0H0", "L1N2"})
    for words, code, sentence in [(["--export", "x", "--import", "y"], 2, "exclude"), (["--import", out + "x"], 1, "out.jsonlx"),
                                  ([], 1, "HOME")]:  # fmt: skip
        got = keyhole("labels", TINY, *words, data=data if words else None)
        check("wrong use", got.returncode == code and sentence in got.stderr, words, got)


with tempfile.TemporaryDirectory() as main_folder:
    main_file = os.path.join(main_folder, "deep", "er", "labels.sqlite")
    with Server(TINY, "--labels", main_file) as main:
        if main.get("/v1/labels")[0] == 501:
            main.refused(501, "built without SQLite", "PUT", "/v1/labels", {"part": "L0N0", "text": "x"})
            finish()
        merging(main, round_trip(main, main_file))
        views(main)
        mistakes(main)
        main_labels = labels(main)
        check("it ends well", main.end() == 0)
    with Server(TINY, "--labels", main_file) as main:
        check("the next one knows them", labels(main) == main_labels and len(main.get("/v1/views")[1]["views"]) == 3)
        with sqlite3.connect(main_file) as db:
            rows = [("other", str(i), "?q", 0) for i in range(997)]
            db.executemany("INSERT INTO view VALUES (?, ?, ?, ?)", rows)
        main.refused(400, "1000 views", "PUT", "/v1/views/another", {"query": "?q"})
        check("which is not kept", len(main.get("/v1/views")[1]["views"]) == 3)
        name = urllib.parse.quote(main.get("/v1/views")[1]["views"][0]["name"])
        check("one that is there may change", main.json("PUT", "/v1/views/" + name, {"query": "?r"})[0] == 200)
    together(os.path.join(main_folder, "shared.sqlite"))
    quantised(main_folder)
    strange_files(main_folder)
    command_line(main_folder)
finish()

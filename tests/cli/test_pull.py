"""keyhole pull and -hf, against a hub that misbehaves: cuts, wrong ranges, wrong checksums, redirects,
refusals, hostile lists, full disks, Ctrl-C, two pulls at once. Everything on 127.0.0.1.

Each function called `pull_*` has a hub and an empty cache of its own; they run side by side, because
most of their time is waiting.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pty
import random
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, "tests/support")
from hub_server import Hub, changed, chunked, cut, forever, git_hash, slowly, stalled, status, whole  # noqa: E402

KEYHOLE = os.environ["KEYHOLE"]
TINY = "tests/golden/tiny/llama.gguf"
TOKEN = "hf_notreal"
failures = []


def noise(size, seed=0):
    return random.Random(seed * 1000003 + size).randbytes(size)


MODEL = noise(300_000)
REPOSITORY = {
    "README.md": b"hello\n",
    "model-IQ4_0.gguf": noise(2000),
    "model-Q4_0.gguf": noise(3000),
    "model-Q4_K_M.gguf": MODEL,
    "model-Q8_0.gguf": noise(5000),
    "mmproj-Q4_K_M.gguf": noise(700),
    "config.json": b'{"a": 1}\n',
}


class Case:
    def __init__(self, name):
        self.name, self.hubs = name, []
        self.home = tempfile.mkdtemp(prefix="keyhole-pull-")
        self.cache = self.home + "/.cache/huggingface/hub"
        self.folder = self.cache + "/models--owner--model"
        self.env = {"PATH": os.environ["PATH"], "HOME": self.home, "HF_TOKEN": TOKEN, "NO_PROXY": "*"}
        for passed in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LD_LIBRARY_PATH"):
            if passed in os.environ:
                self.env[passed] = os.environ[passed]

    def hub(self, files=None, tls=None, **settings):
        hub = Hub(REPOSITORY if files is None else files, tls=tls)
        for name, value in settings.items():
            setattr(hub, name, value)
        self.hubs.append(hub)
        self.env["HF_ENDPOINT"] = hub.url
        return hub

    def close(self):
        for hub in self.hubs:
            hub.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def check(self, what, good):
        if not good:
            failures.append(f"{self.name}: {what}")
            print("FAILED:", failures[-1])

    def run(self, code, *words, **environment):
        limits = environment.pop("limits", None)
        done = subprocess.run([KEYHOLE, *words], env=self.env | environment, capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, restore_signals=False, preexec_fn=limits)  # fmt: skip
        self.out, self.err = done.stdout, done.stderr
        self.check(f"exit {done.returncode}, expected {code}: {words}: {done.stderr}", done.returncode == code)
        self.check(f"no cause in {done.stderr!r}", code == 0 or code == 130 or done.stderr.count("keyhole: ") > 0)
        self.check(f"the token is shown: {done.stdout} {done.stderr}", TOKEN not in done.stdout + done.stderr)
        return done

    def pull(self, code=0, name="owner/model", *words, **environment):
        return self.run(code, "pull", name, *words, **environment)

    def pulled(self, content, name="owner/model", *words, **environment):
        """The pull works, and what it prints has the content."""
        self.pull(0, name, *words, **environment)
        with contextlib.suppress(OSError):
            path = self.out.rstrip("\n")
            with open(path, "rb") as file:
                self.check("the content is as on the hub", file.read() == content)
            return path
        self.check(f"there is no file at {self.out!r}", False)

    def has(self, part):
        self.check(f"{part!r} is expected in {self.out + self.err!r}", part in self.out + self.err)

    def blobs(self):
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(self.folder + "/blobs"))
        return []

    def nothing_but(self, *suffixes):
        """No blob has its final name, no link and no ref exists."""
        self.check(f"blobs: {self.blobs()}", all(b.endswith(suffixes) for b in self.blobs()) if suffixes else not self.blobs())
        self.check("no ref", not os.path.exists(self.folder + "/refs/main"))
        self.check("no links", not [f for _, _, fs in os.walk(self.folder + "/snapshots") for f in fs])

    def ranges(self, hub):
        return [int(r["headers"].get("range", "bytes=0-")[6:-1]) for r in hub.requests("blobs/")]


# ---- as it should be ----


def pull_layout(t):
    hub = t.hub()
    path = t.pulled(MODEL)
    sha256 = hashlib.sha256(MODEL).hexdigest()
    t.check("the path is that of the snapshot", path == f"{t.folder}/snapshots/{hub.head}/model-Q4_K_M.gguf")
    t.check("a relative link", os.readlink(path) == f"../../blobs/{sha256}")
    t.check(f"one blob: {t.blobs()}", t.blobs() == [sha256])
    t.check("the ref", open(t.folder + "/refs/main").read() == hub.head)
    t.check("the lock where others look for it", os.path.exists(f"{t.cache}/.locks/models--owner--model/{sha256}.lock"))
    for request in hub.requests():
        told = request["headers"].get("authorization")
        t.check(f"the token goes to the hub only: {request}", told == (None if request["store"] else f"Bearer {TOKEN}"))
        t.check("keyhole says who it is", request["headers"]["user-agent"].startswith("keyhole/"))
    before = len(hub.requests())
    t.pulled(MODEL)
    t.check("what is there costs one request", len(hub.requests()) == before + 1)
    t.check("and nothing is said", t.err == "")
    t.pulled(b'{"a": 1}\n', "owner/model:config.json")
    t.check("a small file is called by git's hash", git_hash(b'{"a": 1}\n') in t.blobs())
    t.pull(0, "owner/model", "--json")
    row = json.loads(t.out)
    t.check(f"JSON: {row}", row["commit"] == hub.head and row["files"][0]["cached"] and row["path"] == path)
    t.run(0, "pull", "--list")
    t.has("owner/model:model-Q4_K_M.gguf")
    t.has("300.0 kB")
    t.run(0, "pull", "--list", "--json")
    t.check("the list as JSON", [m["path"] for m in json.loads(t.out)] == [path])


def pull_dry_run(t):
    hub = t.hub()
    t.pull(0, "owner/model:Q8_0", "--dry-run")
    t.has("model-Q8_0.gguf")
    t.has("5.0 kB")
    t.check("nothing is written", not os.path.exists(t.home + "/.cache"))
    t.check("nothing is fetched", not hub.requests("resolve"))


def pull_choice(t):
    hub = t.hub()
    t.pulled(REPOSITORY["model-Q8_0.gguf"], "owner/model:q8_0")
    t.pulled(REPOSITORY["model-Q4_0.gguf"], "owner/model:Q4_0")
    t.pulled(REPOSITORY["model-IQ4_0.gguf"], "owner/model:IQ4_0")
    t.pulled(REPOSITORY["model-Q4_0.gguf"], "owner/model:MODEL-Q4_0.GGUF")
    t.pull(1, "owner/model:Q5_K")
    t.has("model-Q8_0.gguf")
    t.check("a projector is no model", "mmproj" not in t.err)
    old = hub.head
    hub.commit({"big-Q8_0.gguf": b"new", "big-F16.gguf": b"f16"})
    t.pulled(b"new")
    t.pulled(MODEL, f"owner/model@{old}")
    t.check("main has moved", open(t.folder + "/refs/main").read() == hub.head)
    hub.commit({"b/only.gguf": b"only", "b/mtp-only.gguf": b"mtp"})
    t.check("a folder inside", t.pulled(b"only").endswith("/b/only.gguf"))
    hub.commit({"README.md": b"x", "pytorch_model.bin": b"y"})
    t.pull(1)
    t.has("a GGUF file or weights in safetensors are expected; there are: README.md, pytorch_model.bin")


def pull_split(t):
    parts = {f"q/m-Q4_K_M-0000{i}-of-00003.gguf": noise(1000 * i) for i in (1, 2, 3)}
    hub = t.hub({"m-Q8_0.gguf": b"8", **parts, "q/m-Q2_K-00001-of-00002.gguf": b"half"})
    path = t.pulled(noise(1000))
    t.check("part 1 is named", path.endswith("-00001-of-00003.gguf"))
    for name, content in parts.items():
        t.check(name, open(f"{t.folder}/snapshots/{hub.head}/{name}", "rb").read() == content)
    t.pulled(noise(1000), "owner/model:q/m-Q4_K_M-00002-of-00003.gguf")
    t.pull(1, "owner/model:Q2_K")
    t.has("2 parts are expected, found 1")


def pull_folder(t):
    wanted = {"config.json": b"{}", "tokenizer.json": b"[]", "tokenizer_config.json": b"0", "chat_template.jinja": b"{{ a }}",
              "generation_config.json": b"1", "model.safetensors.index.json": b"2", "1_Pooling/config.json": b"3",
              "model-00001-of-00002.safetensors": noise(4000), "model-00002-of-00002.safetensors": noise(4001)}  # fmt: skip
    hub = t.hub(wanted | {"README.md": b"no", "consolidated.safetensors": b"no", "onnx/model.onnx": b"no", "tf_model.h5": b"no"})
    t.pull(0)
    folder = t.out.strip()
    t.check("the folder of the snapshot", folder == f"{t.folder}/snapshots/{hub.head}")
    found = sorted(os.path.relpath(os.path.join(top, f), folder) for top, _, fs in os.walk(folder) for f in fs)
    t.check(f"these files and no others: {found}", found == sorted(wanted))
    t.check("their content", all(open(f"{folder}/{n}", "rb").read() == c for n, c in wanted.items()))
    t.run(0, "pull", "--list")
    t.has("owner/model:safetensors")
    t.pull(0, "owner/model:safetensors", "--json", HF_HUB_OFFLINE="1")
    t.check("offline it is the same", json.loads(t.out)["path"] == folder)


def pull_places(t):
    t.hub({"a.gguf": b"a"})
    for variable, below in (("HF_HUB_CACHE", ""), ("HF_HOME", "/hub"), ("XDG_CACHE_HOME", "/huggingface/hub")):
        place = f"{t.home}/{variable}"
        path = t.pulled(b"a", **{variable: place})
        t.check(f"{variable}: {path}", path.startswith(f"{place}{below}/models--owner--model/snapshots/"))


def pull_token(t):
    hub = t.hub({"a.gguf": b"a"}, private="from-a-file")
    t.pull(1, HF_TOKEN="")
    t.has("not found")
    t.has("set HF_TOKEN")
    os.makedirs(t.home + "/.cache/huggingface", exist_ok=True)
    for path, words in ((t.home + "/token", {"HF_TOKEN_PATH": t.home + "/token"}), (t.home + "/.cache/huggingface/token", {})):
        with open(path, "w") as file:
            file.write("from-a-file\n")
        t.pulled(b"a", HF_TOKEN="", **words)
    t.pull(1, HF_TOKEN="", HF_HUB_DISABLE_IMPLICIT_TOKEN="1")
    t.pull(2, HF_TOKEN="a\x01b")
    t.check("no token was sent where none was allowed", "authorization" not in hub.requests()[-1]["headers"])


def pull_usage(t):
    t.hub()
    for name in ("", "a/b/c", "../model", "owner/..", "a--b/c", "owner/model@", "owner/model@../x", "owner/model@a..b/../c",
                 "owner/model:", "owner/model:../x", "owner/model:/x", "-owner/model", "owner/model.git", "o w/m",
                 "owner/model:a\nb", "x" * 300 + "/y"):  # fmt: skip
        t.pull(2, name)
    t.run(2, "pull")
    t.run(2, "pull", "--list", "x")
    t.pull(2, HF_ENDPOINT="ftp://127.0.0.1")
    t.pull(2, HF_ENDPOINT="file:///etc/passwd")
    t.check("nobody was asked", not t.hubs[0].requests())


# ---- faults that pass ----


def pull_cuts(t):
    hub = t.hub(faults={"model": [cut(10)], "tree": [cut(20)], "store": [cut(1000), cut(0), cut(150_000)]})
    t.pulled(MODEL)
    t.check(f"each request begins where the last one ended: {t.ranges(hub)}", t.ranges(hub) == [0, 1000, 1000, 151_000])
    t.has("the connection was cut; trying again in 0.5 s")


def pull_range_ignored(t):
    hub = t.hub(faults={"store": [cut(200_000)]})
    hub.faults["store"].append(whole(hub, "model-Q4_K_M.gguf"))
    t.pulled(MODEL)
    t.check("a 200 replaces what was there", t.ranges(hub) == [0, 200_000])


def pull_range_wrong(t):
    hub = t.hub(faults={"store": [cut(5000), changed({"Content-Range": "bytes 0-299999/300000"}), cut(7000),
                                  changed({"Content-Range": "bytes 7000-299999/300001"})]})  # fmt: skip
    t.pulled(MODEL)
    t.check(f"wrong ranges are not believed: {t.ranges(hub)}", t.ranges(hub) == [0, 5000, 0, 7000, 0])
    t.has("bytes from 5000 of 300000 are expected, found from 0 of 300000")


def pull_range_lies(t):
    """The right Content-Range with other bytes: the checksum finds it, the whole file is fetched again."""
    hub = t.hub(faults={"store": [cut(5000), changed(body=lambda b: bytes(len(b)))]})
    t.pulled(MODEL)
    t.check(f"{t.ranges(hub)}", t.ranges(hub) == [0, 5000, 0])


def pull_range_refused(t):
    hub = t.hub(faults={"store": [cut(5000), status(416)]})
    t.pulled(MODEL)
    t.check(f"{t.ranges(hub)}", t.ranges(hub) == [0, 5000, 0])


def pull_busy(t):
    t.hub(faults={"model": [status(503)], "tree": [status(429, Retry_After="1")], "resolve": [status(500)], "store": [status(502), status(403)]})
    start = time.time()
    t.pulled(MODEL)
    t.check("Retry-After is waited for", time.time() - start > 2.4)
    t.has("the server answers 503")
    t.has("trying again in 1.0 s")


def pull_stalls(t):
    hub = t.hub(faults={"store": [stalled(60), slowly(16, 0.5)]})
    start = time.time()
    t.pulled(MODEL, HF_HUB_DOWNLOAD_TIMEOUT="1")
    t.check("neither silence nor a trickle is waited for", time.time() - start < 30)
    t.check(f"the trickle counts: {t.ranges(hub)}", t.ranges(hub)[:2] == [0, 0] and t.ranges(hub)[2] > 0)


def pull_redirects(t):
    hub = t.hub()
    other = t.hub({"a.gguf": b"a"})
    t.env["HF_ENDPOINT"] = hub.url
    for kind in ("model", "tree", "resolve"):
        hub.faults[kind] = [lambda h, r: status(307, Location=h.path + ("&" if "?" in h.path else "?") + "moved=1")(h, r)]
    t.pulled(MODEL)
    t.check("redirects of the hub to itself keep the token", all("authorization" in r["headers"] for r in hub.requests("moved=1")))
    t.check("and were followed", len(hub.requests("moved=1")) == 3)
    hub.faults["model"] = [forever(status(302, Location=f"{other.url}/api/models/owner/model/revision/main"))]
    t.pull(1, "owner/model:a.gguf", HF_HUB_CACHE=t.home + "/b")
    t.check("another host never sees the token", other.requests() and not any("authorization" in r["headers"] for r in other.requests()))


# ---- faults that stay ----


def pull_loops(t):
    hub = t.hub()
    hub.faults["resolve"] = [forever(lambda h, r: status(302, Location=h.path)(h, r))]
    t.pull(1)
    t.has("more than 8 redirects")
    t.check("eight and no more", len(hub.requests("resolve")) == 9)
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x"):
        hub.faults["resolve"] = [forever(status(302, Location=target))]
        t.pull(1)
        t.has("not followed")
    t.nothing_but(".incomplete")


def pull_refused(t):
    hub = t.hub()
    for code, error, sentence in ((401, "RepoNotFound", "not found"), (403, "GatedRepo", "ask for access"),
                                  (404, "RepoNotFound", "not found"), (404, "RevisionNotFound", "no revision 'main'")):  # fmt: skip
        hub.faults["model"] = [status(code, X_Error_Code=error)]
        before = len(hub.requests())
        t.pull(1)
        t.has(sentence)
        t.check(f"{code} is not tried again", len(hub.requests()) == before + 1)
    for code, error, sentence in ((404, "EntryNotFound", "no file 'model-Q4_K_M.gguf'"), (403, "GatedRepo", "ask for access")):
        hub.faults["resolve"] = [status(code, X_Error_Code=error)]
        t.pull(1)
        t.has(sentence)
    hub.faults["store"] = [forever(status(500))]
    t.pull(1, "owner/model", "--tries", "2")
    t.check("two tries", len(hub.requests("blobs/")) == 2)
    t.check("the signature of an address is not shown", "Signature" not in t.err and "the server answers 500" in t.err)
    t.nothing_but(".incomplete")


def pull_checksum(t):
    flipped = forever(changed(body=lambda b: b[:-1] + bytes([b[-1] ^ 1])))
    hub = t.hub(faults={"store": [flipped], "resolve": []})
    t.pull(1)
    t.has("checksum")
    t.has(hashlib.sha256(MODEL).hexdigest())
    t.nothing_but()
    hub.faults["resolve"] = [flipped]
    t.pull(1, "owner/model:config.json")
    t.has(git_hash(REPOSITORY["config.json"]))
    t.nothing_but()
    hub.faults.clear()
    os.makedirs(t.folder + "/blobs", exist_ok=True)
    for junk in (bytes(1000), bytes(300_000), bytes(300_001)):
        with open(f"{t.folder}/blobs/{hashlib.sha256(MODEL).hexdigest()}.incomplete", "wb") as file:
            file.write(junk)
        t.pulled(MODEL)
        shutil.rmtree(t.folder + "/blobs")
        os.makedirs(t.folder + "/blobs")


def pull_sizes(t):
    hub = t.hub()
    for fault in (changed({"Content-Length": "300001"}), changed({"Content-Length": "5"}),
                  chunked([MODEL + b"more"]), chunked([MODEL[:1000]]),
                  changed(body=lambda b: b + b"more")):  # fmt: skip
        hub.faults["store"] = [fault]
        t.pull(1, "owner/model", "--tries", "1")
        t.has("bytes")
        t.nothing_but(".incomplete")
        shutil.rmtree(t.cache)
    hub.faults["store"] = [chunked([MODEL[:1000]])]
    t.pulled(MODEL)
    hub.faults["resolve"] = [changed({"X-Repo-Commit": "0" * 40})]
    t.pull(1, "owner/model:config.json")
    t.has("is expected, found that of 000")


def pull_hostile_names(t):
    outside = t.home + "/.cache/huggingface"
    hub = t.hub()
    for name in ("../../../../evil.gguf", "/tmp/evil.gguf", "a/../../evil.gguf", "a//b.gguf", "./a.gguf", "..", "", "a/",
                 "a\nb.gguf", "a\x1b[31m.gguf", "a\u0085.gguf", "x" * 241, "a/" * 600 + "b.gguf"):  # fmt: skip
        hub.listing = [name, "model-Q4_K_M.gguf"]
        t.pull(1)
        t.has("which is not a name inside a folder")
        t.check("control characters are not shown", "\x1b" not in t.err and "\u0085" not in t.err and t.err.count("\n") == 1)
    t.check(f"nothing was written: {os.path.exists(outside)}", not os.path.exists(outside))
    for sha in ("../" * 14, "A" * 40, "0" * 39, "", None, 7):
        hub.faults["model"] = [lambda h, r, s=sha: h.send(type(r)(200, {}, json.dumps(json.loads(r.body) | {"sha": s}).encode()))]
        t.pull(1)
        t.has('no "sha" of 40')
    hub.listing = None
    hub.etags = {}
    for etag in ("../../x", "..", "", "a/b", ".hidden", "x" * 129, "x.incomplete", "a b"):
        hub.faults["head"] = [changed({"X-Linked-Etag": f'"{etag}"', "ETag": None})]
        t.pull(1)
        t.has("no etag that can name a file")
    t.nothing_but()


def pull_hostile_json(t):
    hub = t.hub()
    deep = b'{"sha": ' + b"[" * 100_000
    for kind in ("model", "tree"):
        for body in (b"", b"<html>", b"{", b"[]" if kind == "model" else b"{}", b"null", deep, b"\xff\xfe", b"\x1b[31m",  b'{"sha": "\\u0000"}'):
            hub.faults[kind] = [lambda h, r, b=body: h.send(type(r)(200, {}, b))]
            t.pull(1)
            t.has("answer")
            t.check(f"nothing that a terminal obeys: {t.err!r}", "\x1b" not in t.err)
    for siblings in (b"{}", b'[1]', b'[{"rfilename": 7}]', b'[{}]'):
        hub.faults["model"] = [lambda h, r, s=siblings: h.send(type(r)(200, {}, b'{"sha": "%s", "siblings": %s}' % (b"0" * 40, s)))]
        t.pull(1)
    for size, oid in ((-1, "0" * 64), (2**51, "0" * 64), ("1", "0" * 64), (5, "x" * 64), (5, "../../../etc/passwd"), (2**63, "0" * 64)):
        row = [{"type": "file", "path": "model-Q4_K_M.gguf", "size": 5, "oid": "0" * 40, "lfs": {"oid": oid, "size": size}}]
        if size == "1":
            row[0]["size"] = "1"
        hub.faults["tree"] = [lambda h, r, b=json.dumps(row).encode(): h.send(type(r)(200, {}, b))]
        t.pull(1)
    hub.faults["model"] = [chunked(b"[" + b" " * 65536 for _ in range(10_000))]
    t.pull(1)
    t.has("larger than 8388608 bytes")
    hub.faults["model"] = [lambda h, r: (r.headers.update({f"X-{i}": "y" * 500 for i in range(400)}), h.send(r))]
    t.pull(1)
    t.has("headers")
    hub.faults["tree"] = [forever(changed({"Link": '<https://example.org/next>; rel="next"'}))]
    t.pull(1, "owner/model:Q8_0")
    t.has("at another host")
    t.nothing_but()


# ---- the disk, and the user ----


def pull_full_disk(t):
    hub = t.hub()
    t.pull(1, limits=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    t.has("the same command goes on from there")
    t.nothing_but(".incomplete")
    t.pulled(MODEL)
    t.check(f"it goes on from there: {t.ranges(hub)}", t.ranges(hub) == [0, 100_000])
    hub.commit({"huge.gguf": b"x"})
    sizes = lambda b: b.replace(b'"size": 1,', b'"size": %d,' % 2**49)  # noqa: E731
    hub.faults["tree"] = [lambda h, r: h.send(type(r)(200, {}, sizes(r.body)))]
    t.pull(1)
    t.has("the disk has room for")
    t.check("nothing of it was asked for", not hub.requests("huge"))
    os.chmod(t.folder + "/blobs", 0o500)
    if os.geteuid() != 0:
        t.pull(1)
    os.chmod(t.folder + "/blobs", 0o700)


def interrupted(t, hub, number):
    """A pull that gets a signal when a third has arrived."""
    hub.faults["store"] = [slowly(10_000, 0.1)]
    process = subprocess.Popen([KEYHOLE, "pull", "owner/model"], env=t.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    path = f"{t.folder}/blobs/{hashlib.sha256(MODEL).hexdigest()}.incomplete"
    end = time.time() + 20
    while time.time() < end and not (os.path.exists(path) and os.path.getsize(path) > 100_000):
        time.sleep(0.01)
    process.send_signal(number)
    t.out, t.err = process.communicate(timeout=20)
    t.nothing_but(".incomplete")
    return process.returncode, os.path.getsize(path)


def pull_stopped(t):
    hub = t.hub()
    code, size = interrupted(t, hub, signal.SIGINT)
    t.check(f"Ctrl-C ends with 130, not {code}", code == 130)
    t.check("nothing on standard output", t.out == "")
    t.has("stopped; what has arrived is kept")
    t.pulled(MODEL)
    t.check(f"it goes on from there: {t.ranges(hub)}", t.ranges(hub) == [0, size])
    shutil.rmtree(t.cache)
    code, size = interrupted(t, hub, signal.SIGKILL)
    t.pulled(MODEL)
    t.check(f"after a kill too: {t.ranges(hub)}", t.ranges(hub)[-1] == size > 0)


def pull_twice(t):
    hub = t.hub(faults={"store": [slowly(20_000, 0.2)]})
    two = [subprocess.Popen([KEYHOLE, "pull", "owner/model"], env=t.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
           for _ in range(2)]  # fmt: skip
    results = [p.communicate(timeout=30) for p in two]
    t.check(f"both work: {results}", [p.returncode for p in two] == [0, 0] and results[0][0] == results[1][0] != "")
    t.check("the file came once", len(hub.requests("blobs/")) == 1)
    t.check("one waited", any("another program is fetching" in err for _, err in results))
    t.check("and is right", open(results[0][0].strip(), "rb").read() == MODEL)


def pull_changed(t):
    """The file changes between an interrupted pull and the next one."""
    hub = t.hub(faults={"store": [cut(100_000)]})
    t.pull(1, "owner/model", "--tries", "1")
    new = noise(300_000, 1)
    hub.commit(REPOSITORY | {"model-Q4_K_M.gguf": new})
    t.pulled(new)
    t.check("the new one begins at 0", t.ranges(hub) == [0, 0])


def pull_mirror(t):
    """No list of sizes, and etags that are no checksums: heads, If-Range, and size alone."""
    hub = t.hub({"a.txt": MODEL, "model.gguf": MODEL}, etags={"a.txt": "v1"}, faults={"resolve": [cut(1000)]})
    t.pull(1, "owner/model:a.txt", "--tries", "1")
    t.pulled(MODEL, "owner/model:a.txt")
    sent = [r["headers"] for r in hub.requests("a.txt") if r["method"] == "GET"]
    t.check(f"resumed on the condition: {sent}", sent[-1]["range"] == "bytes=1000-" and sent[-1]["if-range"] == '"v1"')
    t.check("the blob is called by the etag", t.blobs() == ["v1"])
    new = noise(300_000, 1)
    hub.commit({"a.txt": new})
    hub.etags = {"a.txt": "v2"}
    hub.faults["resolve"] = [cut(1000)]
    t.pull(1, "owner/model:a.txt", "--tries", "1")

    def moves(handler, reply):
        """The file becomes another one behind the head's back."""
        hub.etags = {"a.txt": "v3"}
        handler.send(reply)

    hub.faults["head"] = [moves]
    t.pull(1, "owner/model:a.txt")
    t.has("etag v2 is expected, found v3")
    t.pulled(new, "owner/model:a.txt")
    t.pulled(MODEL, f"owner/model@{list(hub.commits)[0]}:model.gguf")


# ---- without a network ----


def pull_offline(t):
    hub = t.hub()
    t.pull(1, HF_HUB_OFFLINE="1")
    t.has("is not in the cache")
    path = t.pulled(MODEL)
    before = len(hub.requests())
    t.check("the same path", t.pulled(MODEL, HF_HUB_OFFLINE="1") == path)
    t.pulled(MODEL, "owner/model", "--offline")
    t.pulled(MODEL, "owner/model:Q4_K_M", TRANSFORMERS_OFFLINE="true")
    t.pull(1, "owner/model:Q8_0", HF_HUB_OFFLINE="1")
    t.check("nobody was asked", len(hub.requests()) == before)
    hub.close()
    t.hubs.clear()
    t.pull(1, "owner/model", "--tries", "1")
    t.has("connect")


def pull_hf(t):
    tiny = open(TINY, "rb").read()
    hub = t.hub({"tiny-Q8_0.gguf": tiny, "other-F16.gguf": tiny[:-1]})
    show = ("show", "-hf", "owner/model:Q8_0")
    t.run(0, *show, "--json")
    path = json.loads(t.out)["path"]
    t.check(f"the file of the cache: {path}", path == f"{t.folder}/snapshots/{hub.head}/tiny-Q8_0.gguf")
    before = len(hub.requests())
    t.run(0, "run", "-hf", "owner/model", "--raw", "-n", "2", "--temp", "0", "a", LLAMA_ARG_MODEL="/nowhere.gguf")
    t.check("the second time asks once", len(hub.requests()) == before + 1 and "note: fetching" not in t.err)
    t.run(0, "tokenize", "--hf-repo", "owner/model", "--hf-file", "tiny-Q8_0.gguf", "--ids", "a", HF_HUB_OFFLINE="1")
    t.run(0, "tokenize", "--offline", "--ids", "a", LLAMA_ARG_HF_REPO="owner/model:Q8_0")
    t.check("offline nobody is asked", len(hub.requests()) == before + 1)
    t.run(0, "help", "--verbs")
    for verb in t.out.split("\n")[:-1]:
        t.run(0, "help", *verb.split())
        t.check(f"{verb} takes -hf where it takes -m", ("--model" in t.out) == ("--hf-repo" in t.out))
    hub.faults["model"] = [status(503)]
    t.run(0, *show)
    t.check(f"one line about a failing hub: {t.err}", t.err.count("\n") == 1 and "503; using the copy in the cache" in t.err)
    hub.commit({"new-Q8_0.gguf": tiny})
    t.run(0, *show, "--json")
    t.check("a new commit is followed", json.loads(t.out)["path"].endswith("new-Q8_0.gguf"))
    t.check("the same bytes are not fetched again", len(hub.requests("blobs/")) == 1)
    hub.commit({"newer-Q8_0.gguf": tiny + b"x"})
    hub.faults["resolve"] = [status(404)]
    t.run(0, *show, "--json")
    t.check("half a new commit: the old file", json.loads(t.out)["path"].endswith("new-Q8_0.gguf") and "using the copy" in t.err)
    t.run(1, "show", "-hf", "owner/model:Q2_K")
    t.run(2, "show", "-hf", "nonsense:")
    hub.close()
    t.hubs.clear()
    t.run(0, *show, "--json")
    t.check(f"no network, one line: {t.err}", t.err.count("\n") == 1 and "using the copy in the cache" in t.err)


def pull_hf_folder(t):
    """A folder of the cache opens as the same folder elsewhere does, under the model's name."""
    folder = "tests/golden/families/gemma3"
    t.hub({name: open(f"{folder}/{name}", "rb").read() for name in os.listdir(folder)})
    t.run(0, "show", folder, "--json")
    beside = json.loads(t.out)
    t.run(0, "show", "-hf", "owner/model", "--json")
    ours = json.loads(t.out)
    t.check("the same tensors", ours["tensors"] == beside["tensors"] and ours["parameters"] == beside["parameters"])
    t.check(f"the name: {ours['name']}", ours["name"] == "model")
    t.run(0, "show", "-hf", "owner/model", HF_HUB_OFFLINE="1")


def pull_certificates(t):
    """Over TLS: an unknown certificate is refused at once, a known one is not enough for another name, and
    a redirect to plain HTTP is not followed."""
    if not shutil.which("openssl"):
        return
    for host in ("IP:127.0.0.1", "DNS:example.org"):
        made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                               "-subj", "/CN=test", "-addext", f"subjectAltName={host}", "-keyout", "key.pem", "-out", "cert.pem"],
                              cwd=t.home, capture_output=True)  # fmt: skip
        t.check(f"a certificate: {made.stderr}", made.returncode == 0)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(t.home + "/cert.pem", t.home + "/key.pem")
        hub = t.hub(tls=tls)
        t.pull(1)
        t.has("certificate")
        t.check("no second try", "trying again" not in t.err)
        t.check("nothing was asked, so no token was sent", not hub.requests())
        if host.startswith("IP"):
            t.pulled(b"hello\n", "owner/model:README.md", SSL_CERT_FILE=t.home + "/cert.pem")
            t.pull(1, SSL_CERT_FILE=t.home + "/cert.pem")
            t.has("a redirect to what is not https is not followed")
        else:
            t.pull(1, SSL_CERT_FILE=t.home + "/cert.pem")
            t.has("127.0.0.1")


def pull_bar(t):
    """On a terminal: a bar with rate and time, wiped away at the end; no colours."""
    t.hub(faults={"store": [slowly(10_000, 0.05)]})
    try:
        control, terminal = pty.openpty()
    except OSError:
        return
    process = subprocess.Popen([KEYHOLE, "pull", "owner/model"], env=t.env | {"NO_COLOR": "1"}, stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):
        while data := os.read(control, 65536):
            shown += data
    process.communicate()
    os.close(control)
    t.check("exit 0", process.returncode == 0)
    for part in (b"model-Q4_K_M.gguf ", b"##", b" of 300.0 kB", b"kB/s, ", b" s left", b"\r\x1b[K"):
        t.check(f"{part!r} in {shown!r}", part in shown)
    t.check("no colours", b"m" not in [shown[i + 2 : i + 3] for i in range(len(shown)) if shown[i : i + 2] == b"\x1b["])


def main():
    version = subprocess.run([KEYHOLE, "--version"], capture_output=True, text=True).stdout
    if "libcurl" not in version:
        print("skipped: this build has no libcurl")
        return 77
    only = sys.argv[1:]
    names = [n for n in globals() if n.startswith("pull_") and (not only or n in only)]

    def one(name):
        case, start = Case(name), time.time()
        try:
            globals()[name](case)
        except Exception as e:  # noqa: BLE001
            case.check(f"{type(e).__name__}: {e}", False)
        finally:
            case.close()
        return name, time.time() - start

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for name, seconds in pool.map(one, names):
            print(f"{name}: {seconds:.1f} s")
    print(f"{len(names)} cases, {len(failures)} failures")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())

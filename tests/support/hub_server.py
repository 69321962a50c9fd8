"""A model hub on 127.0.0.1 that misbehaves on demand.

Two servers share one state: the hub answers the API and redirects large files to the store, which is
another origin, as it is in life. `Hub.faults[KIND]` is a list of functions that take the handler and
what would have been sent; each answer of that kind uses up the first one, and a fault that returns
"again" stays. Kinds: model, tree, resolve, store, head. `Hub.log` has every request.
"""

import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse


class Reply:
    """What an honest server would send."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, dict(headers), body


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, *_):
        pass

    def send(self, reply):
        self.send_response(reply.status)
        reply.headers.setdefault("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def cut(self):
        """Closes the connection at once."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub, port = self.server.hub, self.server.server_address[1]
        entry = {"port": port, "store": self.server is hub.store, "method": self.command,
                 "path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}}  # fmt: skip
        with hub.lock:
            hub.log.append(entry)
        kind, reply = hub.answer(self, entry)
        with hub.lock:
            queue = hub.faults.get(kind, [])
            fault = queue.pop(0) if queue else None
        try:
            if fault is None:
                self.send(reply)
            elif fault(self, reply) == "again":
                with hub.lock:
                    hub.faults.setdefault(kind, []).insert(0, fault)
        except OSError:
            self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub, tls=None):
        self.hub, self.scheme = hub, "https" if tls else "http"
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, *_):
        pass

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    def __init__(self, files, name="owner/model", tls=None):
        self.lock = threading.Lock()
        self.name, self.log, self.faults = name, [], {}
        self.private = None  # a token, without which the answer is 401
        self.listing = None  # names that the list has, instead of those of the files
        self.etags = None    # a mirror: no tree, and these etags
        self.commits = {}
        self.commit(files)
        self.main, self.store = Server(self, tls), Server(self)
        self.url = self.main.url

    def close(self):
        for server in (self.main, self.store):
            server.shutdown()
            server.server_close()

    def commit(self, files):
        self.files = dict(files)
        self.head = hashlib.sha1(repr(sorted((k, hashlib.sha1(v).hexdigest()) for k, v in files.items())).encode()).hexdigest()
        self.commits[self.head] = self.files
        return self.head

    @staticmethod
    def is_large(name):
        return name.endswith((".gguf", ".safetensors"))

    @classmethod
    def etag(cls, name, data):
        return hashlib.sha256(data).hexdigest() if cls.is_large(name) else git_hash(data)

    def requests(self, part="", store=None):
        with self.lock:
            return [r for r in self.log if part in r["path"] and store in (None, r["store"])]

    # ---- answers ----

    def answer(self, handler, request):
        path = urllib.parse.unquote(urllib.parse.urlsplit(request["path"]).path)
        if request["store"]:
            return "store", self.blob(path, request)
        token = request["headers"].get("authorization")
        if self.private and token != f"Bearer {self.private}":
            return "model", Reply(401, {"X-Error-Code": "RepoNotFound"}, b"Invalid credentials")
        match = re.fullmatch(rf"/api/models/{self.name}/(revision|tree)/(.+)", path)
        if match:
            commit = self.head if match[2] == "main" else match[2]
            if commit not in self.commits:
                return "model", Reply(404, {"X-Error-Code": "RevisionNotFound"}, b"")
            if match[1] == "revision":
                return "model", self.model(commit)
            return "tree", self.tree(commit, request)
        match = re.fullmatch(rf"/{self.name}/resolve/([^/]+)/(.+)", path)
        if match:
            kind = "head" if handler.command == "HEAD" else "resolve"
            return kind, self.resolve(match[1], match[2], request)
        return "model", Reply(404, {"X-Error-Code": "RepoNotFound"}, b"Repository not found")

    def model(self, commit):
        names = self.listing or list(self.commits[commit])
        text = json.dumps({"id": self.name, "sha": commit, "siblings": [{"rfilename": n} for n in names]})
        return Reply(200, {"Content-Type": "application/json"}, text.encode())

    def tree(self, commit, request):
        if self.etags is not None:
            return Reply(404, {}, b"no such page")
        rows = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "folder"}]
        for name, data in self.commits[commit].items():
            row = {"type": "file", "oid": git_hash(data), "size": len(data), "path": name}
            if self.is_large(name):
                row["oid"] = git_hash(b"pointer" + name.encode())
                row["lfs"] = {"oid": self.etag(name, data), "size": len(data), "pointerSize": 134}
            rows.append(row)
        page = int(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(request["path"]).query)).get("cursor", 0))
        headers, step = {"Content-Type": "application/json"}, 4
        if page + step < len(rows):
            headers["Link"] = f'<{self.url}/api/models/{self.name}/tree/{commit}?recursive=true&cursor={page + step}>; rel="next"'
        return Reply(200, headers, json.dumps(rows[page : page + step]).encode())

    def resolve(self, commit, name, request):
        commit = self.head if commit == "main" else commit
        files = self.commits.get(commit, {})
        if name not in files:
            return Reply(404, {"X-Error-Code": "EntryNotFound"}, b"Entry not found")
        data = files[name]
        etag = self.etags.get(name, self.etag(name, data)) if self.etags is not None else self.etag(name, data)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if self.is_large(name):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data)), "ETag": '"of-the-redirect"',
                        "Location": f"{self.store.url}/blobs/{commit}/{urllib.parse.quote(name)}?Signature=secret"}  # fmt: skip
            return Reply(302, headers, b"Found. Redirecting")
        return self.ranged(headers | {"ETag": f'"{etag}"'}, data, request)

    def blob(self, path, request):
        _, _, commit, name = path.split("/", 3)
        return self.ranged({"ETag": '"of-the-store"'}, self.commits[commit][name], request)

    @staticmethod
    def ranged(headers, data, request):
        asked = re.fullmatch(r"bytes=(\d+)-", request["headers"].get("range", ""))
        condition = request["headers"].get("if-range")
        if not asked or (condition and condition != headers["ETag"]):
            return Reply(200, headers, data)
        start = int(asked[1])
        if start >= len(data):
            return Reply(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return Reply(206, headers, data[start:])


# ---- faults: each is made by a call and returns a function for Hub.faults ----


def forever(fault):
    def run(handler, reply):
        fault(handler, reply)
        return "again"

    return run


def cut(after):
    def run(handler, reply):
        reply.headers["Content-Length"] = str(len(reply.body))
        reply.body = reply.body[:after]
        handler.send(reply)
        handler.cut()

    return run


def status(code, **headers):
    return lambda handler, reply: handler.send(Reply(code, {k.replace("_", "-"): v for k, v in headers.items()}, b"no"))


def changed(headers=None, body=None, code=None):
    """The honest answer but for some headers (None takes one away), its body or its status."""

    def run(handler, reply):
        reply.headers.update(headers or {})
        reply.body = body(reply.body) if body else reply.body
        reply.status = code or reply.status
        handler.send(reply)

    return run


def whole(hub, name):
    """Ignores a range."""
    return lambda handler, reply: handler.send(Reply(200, {"ETag": '"x"'}, hub.files[name]))


def slowly(chunk, pause):
    def run(handler, reply):
        handler.send_response(reply.status)
        for name, value in (reply.headers | {"Content-Length": str(len(reply.body))}).items():
            handler.send_header(name, value)
        handler.end_headers()
        for at in range(0, len(reply.body), chunk):
            handler.wfile.write(reply.body[at : at + chunk])
            time.sleep(pause)

    return run


def stalled(seconds):
    def run(handler, reply):
        time.sleep(seconds)
        handler.cut()

    return run


def chunked(pieces):
    """A body without an announced length."""

    def run(handler, reply):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    return run

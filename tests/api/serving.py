"""What the scripts in tests/api share: a server on a free port, requests, checks.

    with Server(TINY, "--api-key", "k") as server:
        status, answer = server.post("/tokenize", {"content": "x"})
        check("what is proved", status == 200)
    finish()
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

KEYHOLE = os.environ["KEYHOLE"]
TINY = "tests/golden/tiny/llama.gguf"
ENCODER = "tests/golden/families/bert-embed"
PATIENCE = 120
DATA = tempfile.TemporaryDirectory(prefix="keyhole-data-")
failures, checks = [], 0


def check(what, good, *more):
    global checks
    checks += 1
    if not good:
        failures.append(what)
        print("FAILED:", what, *more, flush=True)


def finish():
    print(f"{checks} checks, {len(failures)} failed")
    sys.exit(bool(failures))


def skip(why):
    print("skipped:", why)
    sys.exit(77)


class Server:
    def __init__(self, *words, verb=("serve",)):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LLAMA_ARG_")}
        environment["LLAMA_ARG_PORT"] = "0"
        environment["XDG_DATA_HOME"] = DATA.name
        self.log = tempfile.NamedTemporaryFile("w+", prefix="keyhole-serve-")
        self.process = subprocess.Popen([KEYHOLE, *verb, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=self.log, env=environment)  # fmt: skip
        end = time.time() + PATIENCE
        found = None
        while not found and self.process.poll() is None and time.time() < end:
            found = re.search(r"at http://([^ ]+):(\d+)", self.said())
            time.sleep(0.02)
        if not found:
            raise RuntimeError("the server did not start: " + self.said())
        self.host, self.port = found[1].strip("[]"), int(found[2])

    def said(self):
        with open(self.log.name) as file:
            return file.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])

    def connection(self, timeout=PATIENCE):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None):
        """Status, headers, bytes."""
        connection = self.connection()
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, method, path, body=None, headers=None):
        status, _, content = self.request(method, path, body, headers)
        return status, json.loads(content)

    def get(self, path, headers=None):
        return self.json("GET", path, None, headers)

    def post(self, path, body, headers=None):
        return self.json("POST", path, body, headers)

    def events(self, path, body):
        """The documents of a stream, and whether it was ended by [DONE]."""
        status, headers, content = self.request("POST", path, {**body, "stream": True})
        lines = [line[6:] for line in content.decode().split("\n\n") if line]
        check(f"{path}: a stream", status == 200 and headers["Content-Type"] == "text/event-stream", content[:200])
        check(f"{path}: [DONE] is last", lines[-1:] == ["[DONE]"])
        return [json.loads(line) for line in lines[:-1]]

    def refused(self, want, sentence, method, path, body=None, headers=None):
        """A status and a sentence, in the one form of errors."""
        status, answer = self.json(method, path, body, headers)
        error = answer.get("error", {}) if isinstance(answer, dict) else {}
        good = status == want and error.get("code") == want and sentence in error.get("message", "") and error.get("type")
        check(f"{method} {path} {str(body)[:80]}: {want} {sentence}", good, status, answer)

    def raw(self, data, seconds=10):
        """Bytes as they are; what came back until the server closed."""
        with socket.create_connection((self.host, self.port), seconds) as s:
            s.sendall(data)
            out = b""
            try:
                while more := s.recv(65536):
                    out += more
            except (TimeoutError, ConnectionResetError):
                pass
            return out

    def metric(self, name):
        text = self.request("GET", "/metrics")[2].decode()
        return float(re.search(rf"^llamacpp:{name} (\S+)$", text, re.M)[1])

    def wait_idle(self, seconds=30):
        end = time.time() + seconds
        while time.time() < end:
            if self.metric("requests_processing") == 0 and self.metric("requests_deferred") == 0:
                return True
            time.sleep(0.05)
        return False

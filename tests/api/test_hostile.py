"""keyhole serve and those who mean no good: keys, hosts, origins, paths, bodies. A status and a sentence, never an end."""

import json
import random

from serving import TINY, Server, check, finish

ANSWER = {"prompt": "x", "max_tokens": 2, "temperature": 0}


def keys():
    with Server(TINY, "--api-key", "secret", "--api-key", "other") as server:
        check("/health needs no key", server.get("/health")[0] == 200)
        check("nor the page", server.request("GET", "/")[0] == 200)
        for header in [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "secret"},
                       {"Authorization": "Bearer secret2"}, {"Authorization": "Bearer secre"}, {"X-Api-Key": ""},
                       {"Authorization": "Basic secret"}, {"Authorization": "Bearer " + "s" * 10000}]:  # fmt: skip
            server.refused(401, "key", "GET", "/v1/models", None, header)
            server.refused(401, "key", "POST", "/v1/completions", ANSWER, header)
        server.refused(401, "key", "GET", "/nowhere")
        for header in [{"Authorization": "Bearer secret"}, {"Authorization": "bearer other"}, {"X-Api-Key": "secret"}]:
            check("a key opens", server.get("/v1/models", header)[0] == 200)
            check("for answers too", server.post("/v1/completions", ANSWER, header)[0] == 200)


def origins(server):
    mine = f"http://127.0.0.1:{server.port}"
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "", ":",
                 "127.0.0.1:80:80", "127.0.0.1:x", "10.0.0.1", "a" * 5000, "localhost@evil.example"]:  # fmt: skip
        server.refused(403, "Host", "GET", "/v1/models", None, {"Host": host})
    for host in ["localhost", f"localhost:{server.port}", "LOCALHOST", "127.0.0.1", "[::1]:8080", "localhost."]:
        check(f"Host {host}", server.get("/v1/models", {"Host": host})[0] == 200)
    check("no Host at all", server.raw(b"GET /v1/models HTTP/1.0\r\n\r\n").startswith((b"HTTP/1.1 403", b"HTTP/1.0 403", b"HTTP/1.1 400")))
    for origin in ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1", f"{mine}.evil.example", "file://"]:
        server.refused(403, "origin", "POST", "/tokenize", {"content": "x"}, {"Origin": origin})
        server.refused(403, "origin", "POST", "/v1/completions", json.dumps(ANSWER), {"Origin": origin, "Content-Type": "text/plain"})
        headers = server.request("OPTIONS", "/v1/completions", None, {"Origin": origin})[1]
        check("no preflight either", "Access-Control-Allow-Origin" not in headers)
    check("the page's own", server.post("/tokenize", {"content": "x"}, {"Origin": mine})[0] == 200)
    with Server(TINY, "--cors-origin", "http://app.example") as named:
        status, headers, _ = named.request("OPTIONS", "/v1/completions", None, {"Origin": "http://app.example"})
        check("the named one may", status == 204 and headers["Access-Control-Allow-Origin"] == "http://app.example")
        status, headers, _ = named.request("POST", "/tokenize", {"content": "x"}, {"Origin": "http://app.example"})
        check("and does", status == 200 and headers["Access-Control-Allow-Origin"] == "http://app.example")
        named.refused(403, "origin", "POST", "/tokenize", {"content": "x"}, {"Origin": "http://app.example.evil"})


def paths(server):
    for path in ["/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//health", "/health/", "/health/x", "/slots/../health",
                 "/slots/", "/slots//", "/v1", "/v1/models/../../etc", "/%00", "/\\..\\", "/index.html/..", "/a" * 3000,
                 "/slots/1/2", "*", "/.git/config", "/v1/models%2f"]:  # fmt: skip
        status, headers, content = server.request("GET", path)
        check(f"GET {path[:40]}: 404", status in (404, 405, 400, 414, 431), status, content[:100])
        check("and nothing of the machine", b"root:" not in content)


def bodies(server):
    for path in ["/v1/chat/completions", "/v1/completions", "/completion", "/tokenize", "/apply-template", "/v1/embeddings"]:
        for body in ["", "{", "[]", "7", '"x"', "null", "{}x", '{"a":1e999}', '{"prompt":"\\u0000"}', b"\xff\xfe", b"\0",
                     "[" * 100000, '{"a":' * 100000, '{"messages":' + "[" * 1500 + "]" * 1500 + "}",
                     '{"prompt":' + "[" * 1500 + "]" * 1500 + "}", '{"prompt":"\\ud800"}', '{"n":1' + "0" * 400 + "}",
                     '{"prompt":["' + '","' * 50000 + '"]}', json.dumps({"stop": "x" * 5000})]:  # fmt: skip
            status, headers, content = server.request("POST", path, body)
            check(f"{path} {str(body)[:30]}: refused", status in (400, 422, 501) or path == "/tokenize", status, content[:200])
            check("in a sentence", status == 200 or json.loads(content)["error"]["message"])
    for path in ["/v1/chat/completions", "/v1/completions", "/completion"]:
        body = {"prompt": "x", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "debug": {"lens": {}}}
        server.refused(400, "/v1/lens/prompt", "POST", path, body)
    check("duplicates: the last counts", server.request("POST", "/tokenize", '{"content":1,"content":"x"}')[0] == 200)
    status, answer = server.post("/tokenize", {"content": "x " * 100000})
    check("a long text is a long text", status == 200 and len(answer["tokens"]) >= 100000)
    server.refused(413, "larger", "POST", "/tokenize", '{"content":"' + "x" * (17 << 20) + '"}')
    check("and the server is there", server.get("/health")[0] == 200)


def bytes_as_they_are(server):
    big = b"A" * 200000
    for data in [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"GET /health HTTP/1.1\r\n" + big,
                 b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
                 b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
                 b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"GET " + big + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"]:  # fmt: skip
        server.raw(data, seconds=0.3)
        check(f"alive after {data[:30]}", server.get("/health")[0] == 200)


def noise(server):
    """Requests with one thing wrong, drawn; the seed is printed by a failure."""
    draw = random.Random(11)
    names = ["prompt", "messages", "temperature", "top_k", "top_p", "seed", "stop", "logit_bias", "stream", "logprobs", "n_probs",
             "max_tokens", "n_predict", "tools", "tool_choice", "response_format", "stream_options", "ignore_eos", "content",
             "tokens", "input", "chat_template_kwargs", "cache_prompt", "repeat_last_n", "min_p", "debug"]  # fmt: skip
    values = [None, True, False, 0, 1, -1, 3.5, 1e308, -1e308, 2**63 - 1, "", "x", "\ud7ff", [], [1], ["a"], {}, {"role": "user"},
              [{"role": "user", "content": "x"}], [[1, 2]], {"1": 2}, [None], "a" * 3000, {"type": "text"}]  # fmt: skip
    routes = ["/v1/chat/completions", "/v1/completions", "/completion", "/tokenize", "/detokenize", "/apply-template", "/v1/embeddings"]
    for round_ in range(600):
        body = {draw.choice(names): draw.choice(values) for _ in range(draw.randint(1, 6))}
        if draw.random() < 0.5:
            body.update({"prompt": "x", "messages": [{"role": "user", "content": "x"}], draw.choice(names): draw.choice(values)})
        body["max_tokens"] = body["n_predict"] = body["max_completion_tokens"] = 2
        status, headers, content = server.request("POST", draw.choice(routes), body)
        check(f"noise {round_}", status in (200, 400, 422, 501), status, content[:200], body)


keys()
with Server(TINY, "--chat-template", "chatml") as main:
    origins(main)
    paths(main)
    bodies(main)
    bytes_as_they_are(main)
    noise(main)
    check("nobody is at work", main.wait_idle())
    check("it ends well", main.end() == 0)
finish()

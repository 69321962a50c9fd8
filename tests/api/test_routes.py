"""keyhole serve: every route, what it says and what it refuses."""

import base64
import json
import math
import os
import re
import struct
import subprocess
import tempfile

from serving import ENCODER, KEYHOLE, TINY, Server, check, finish

# A prompt whose ids are the same wherever it is asked.
GREEDY = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}
TALK = [{"role": "user", "content": "a b c"}]


def near(a, b):
    return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4)


def about(server):
    check("/health", server.get("/health") == (200, {"status": "ok"}))
    status, models = server.get("/v1/models")
    check("/v1/models names the file", status == 200 and models["data"][0]["id"] == "llama.gguf", models)
    status, props = server.get("/props")
    check("/props", status == 200 and props["total_slots"] == 3 and props["attn"] == "topk:k=16", props)
    status, slots = server.get("/slots")
    check("/slots", status == 200 and [s["id"] for s in slots] == [0, 1, 2] and not slots[0]["is_processing"], slots)
    check("/lora-adapters", server.get("/lora-adapters") == (200, []))
    status, headers, text = server.request("GET", "/metrics")
    check("/metrics is Prometheus' text", headers["Content-Type"].startswith("text/plain") and b"# TYPE" in text)
    status, headers, text = server.request("GET", "/")
    check("the page", status == 200 and headers["Content-Type"].startswith("text/html") and b"<html" in text)
    check("which may load nothing", "default-src 'none'" in headers["Content-Security-Policy"])
    check("no origin is welcome", "Access-Control-Allow-Origin" not in headers)
    check("HEAD", server.request("HEAD", "/health")[0] == 200)


def document(server):
    """Everything that is documented exists, and answers what is not asked rightly with a sentence."""
    status, api = server.get("/openapi.json")
    check("OpenAPI 3", status == 200 and api["openapi"].startswith("3.") and len(api["paths"]) > 15)
    for path, methods in api["paths"].items():
        for method, what in methods.items():
            real = re.sub(r"{\w+}", "0", path)
            braces = [p["name"] for p in what.get("parameters", []) if p["in"] == "path"]
            check(f"{path}: its parts", braces == re.findall(r"{(\w+)}", path), braces)
            status, headers, content = server.request(method.upper(), real, "{}" if method in ("post", "put") else None)
            exists = status not in (405, 500) and b"no such path" not in content
            check(f"{method} {path} exists", exists and what["summary"], status, content)
            if status >= 400:
                check(f"{path}: a sentence", json.loads(content)["error"]["message"])
        for wrong in {"get", "post", "put", "delete"} - set(methods):
            status, headers, content = server.request(wrong.upper(), real, "{}" if wrong in ("post", "put") else None)
            allowed = headers["Allow"].lower().split(", ") if status == 405 else []
            check(f"{wrong} {path}: 405", sorted(allowed) == sorted(methods), status, allowed)


def texts(server):
    status, answer = server.post("/tokenize", {"content": "hello world"})
    ids = answer["tokens"]
    check("/tokenize", status == 200 and ids and all(isinstance(i, int) for i in ids), answer)
    check("/detokenize is the way back", server.post("/detokenize", {"tokens": ids})[1]["content"] == "hello world")
    pieces = server.post("/tokenize", {"content": "é🙂", "with_pieces": True})[1]["tokens"]
    whole = b"".join(p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in pieces)
    check("pieces are the text, broken characters as bytes", whole == "é🙂".encode(), pieces)
    check("nothing is nothing", server.post("/tokenize", {"content": ""}) == (200, {"tokens": []}))
    server.refused(400, "content: a text is expected, found 7", "POST", "/tokenize", {"content": 7})
    server.refused(400, "tokens", "POST", "/detokenize", {})
    server.refused(400, "entry 1", "POST", "/detokenize", {"tokens": [1, 999999]})


def completions(server):
    status, one = server.post("/v1/completions", {"prompt": "hello", **GREEDY})
    check("/v1/completions", status == 200 and one["object"] == "text_completion", one)
    choice, usage = one["choices"][0], one["usage"]
    check("ends by length", choice["finish_reason"] == "length" and usage["completion_tokens"] == 8, one)
    check("usage adds up", usage["total_tokens"] == usage["prompt_tokens"] + 8)
    run = subprocess.run([KEYHOLE, "run", "-m", TINY, "-p", "hello", "-n", "8", "--temp", "0", "--raw", "--ignore-eos",
                          "--json", "-q", "--attn", "topk:k=16"], capture_output=True, text=True)  # fmt: skip
    check("as the command line says it", json.loads(run.stdout)["text"] == choice["text"], run.stdout, choice)
    again = server.post("/v1/completions", {"prompt": "hello", **GREEDY})[1]
    check("again, from what was read", again["choices"] == one["choices"])
    check("and it was", again["usage"]["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1, again)
    fresh = server.post("/v1/completions", {"prompt": "hello", **GREEDY, "cache_prompt": False})[1]
    check("cache_prompt: false reads again", fresh["usage"]["prompt_tokens_details"]["cached_tokens"] == 0)
    check("with the same answer", fresh["choices"] == one["choices"])
    ids = server.post("/tokenize", {"content": "hello", "add_special": True})[1]["tokens"]
    check("ids for a prompt", server.post("/v1/completions", {"prompt": ids, **GREEDY})[1]["choices"] == one["choices"])
    check("a list of one", server.post("/v1/completions", {"prompt": ["hello"], **GREEDY})[1]["choices"] == one["choices"])
    events = server.events("/v1/completions", {"prompt": "hello", **GREEDY})
    check("a stream says the same", "".join(e["choices"][0]["text"] for e in events) == choice["text"])
    check("and ends so", events[-1]["choices"][0]["finish_reason"] == "length")

    sampled = {"prompt": "hello", "max_tokens": 12, "temperature": 1.5, "ignore_eos": True}
    first = server.post("/v1/completions", {**sampled, "seed": 5})[1]["choices"]
    check("a seed is a seed", server.post("/v1/completions", {**sampled, "seed": 5})[1]["choices"] == first)
    others = {server.post("/v1/completions", {**sampled, "seed": s})[1]["choices"][0]["text"] for s in range(6, 12)}
    check("another one is another", len(others) > 1)
    text = choice["text"]
    stop = text[3:5]
    ended = server.post("/v1/completions", {"prompt": "hello", **GREEDY, "stop": [stop, "@@@"]})[1]["choices"][0]
    check("stop", ended["finish_reason"] == "stop" and ended["text"] == text[: text.index(stop)], ended, text)


def logprobs(server):
    body = {"prompt": "hello", **GREEDY, "max_tokens": 3}
    old = server.post("/v1/completions", {**body, "logprobs": 4})[1]["choices"][0]["logprobs"]
    check("old logprobs", len(old["tokens"]) == len(old["token_logprobs"]) == 3 and len(old["content"]) == 3, old)
    answer = server.post("/completion", {"prompt": "hello", "n_predict": 3, "temperature": 0, "ignore_eos": True,
                                         "n_probs": 4, "return_tokens": True})[1]  # fmt: skip
    entries = answer["completion_probabilities"]
    check("n_probs: entries with ids", [e["id"] for e in entries] == answer["tokens"] and len(entries) == 3, answer)
    for mine, theirs in zip(entries, old["content"]):
        check("both dialects agree", mine["id"] == theirs["id"] and near(mine["logprob"], theirs["logprob"]))
    top = entries[0]["top_logprobs"]
    check("best first, four of them", len(top) == 4 and all(a["logprob"] >= b["logprob"] for a, b in zip(top, top[1:])))
    check("greedy takes the best", top[0]["id"] == entries[0]["id"] and near(top[0]["logprob"], entries[0]["logprob"]))
    check("bytes", bytes(top[0]["bytes"]).decode(errors="replace") == top[0]["token"])
    every = server.post("/completion", {"prompt": "hello", "n_predict": 1, "temperature": 0.7, "top_k": 5, "top_p": 1,
                                        "min_p": 0, "n_probs": 100, "post_sampling_probs": True, "seed": 1})[1]  # fmt: skip
    probs = [t["prob"] for t in every["completion_probabilities"][0]["top_probs"]]
    check("after sampling: five are left, and sum to 1", sum(p > 0 for p in probs) == 5 and near(sum(probs), 1), probs[:8])
    before = server.post("/completion", {"prompt": "hello", "n_predict": 1, "temperature": 0, "n_probs": 5})[1]
    logits = [t["logprob"] / 0.7 for t in before["completion_probabilities"][0]["top_logprobs"]]
    want = [math.exp(x - logits[0]) for x in logits]
    check("they are the softmax at the temperature", all(near(p, w / sum(want)) for p, w in zip(probs, want)), probs[:5])
    first = answer["tokens"][0]
    for bias in ([[first, False]], {str(first): -100}):
        changed = server.post("/completion", {"prompt": "hello", "n_predict": 1, "temperature": 0, "logit_bias": bias,
                                              "return_tokens": True, "ignore_eos": True})[1]  # fmt: skip
        check("logit_bias", changed["tokens"] != [first], changed["tokens"])


def llama(server):
    status, answer = server.post("/completion", {"prompt": "hello", "n_predict": 4, "temperature": 0, "ignore_eos": True})
    check("/completion", status == 200 and answer["stop"] and answer["stop_type"] == "limit", answer)
    check("its timings", answer["timings"]["predicted_n"] == 4 and answer["tokens_predicted"] == 4)
    check("its settings", answer["generation_settings"]["attn"] == "topk:k=16")
    events = server.events("/completion", {"prompt": "hello", "n_predict": 4, "temperature": 0, "ignore_eos": True})
    check("streamed", "".join(e["content"] for e in events) == answer["content"] and events[-1]["stop"], events)
    mixed = server.post("/completion", {"prompt": [1, "hello", 5], "n_predict": 1})
    check("a prompt of texts and ids", mixed[0] == 200 and mixed[1]["tokens_evaluated"] >= 3, mixed)
    server.refused(400, "prompt: it is missing", "POST", "/completion", {})
    server.refused(400, "prompt", "POST", "/completion", {"prompt": [1, {}]})
    server.refused(400, "empty", "POST", "/completion", {"prompt": []})


def chat(server):
    status, one = server.post("/v1/chat/completions", {"messages": TALK, **GREEDY, "logprobs": True, "top_logprobs": 2})
    check("/v1/chat/completions", status == 200 and one["object"] == "chat.completion", one)
    choice = one["choices"][0]
    check("an assistant's", choice["message"]["role"] == "assistant" and choice["finish_reason"] == "length")
    entries = choice["logprobs"]["content"]
    check("logprobs of every token", len(entries) == 8 and len(entries[0]["top_logprobs"]) == 2 and "id" in entries[0])
    parts = [{"role": "user", "content": [{"type": "text", "text": "a b "}, {"type": "text", "text": "c"}]}]
    same = server.post("/v1/chat/completions", {"messages": parts, **GREEDY})[1]["choices"][0]["message"]
    check("parts of text are a text", same == choice["message"])
    prompt = server.post("/apply-template", {"messages": TALK})[1]["prompt"]
    check("/apply-template", "a b c" in prompt and prompt.endswith("assistant\n"), prompt)
    events = server.events("/v1/chat/completions", {"messages": TALK, **GREEDY, "stream_options": {"include_usage": True}})
    check("begins with the role", events[0]["choices"][0]["delta"]["role"] == "assistant")
    said = "".join(e["choices"][0]["delta"].get("content", "") for e in events if e["choices"])
    check("streamed", said == choice["message"]["content"], said)
    check("its usage is last", events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 8)
    check("max_completion_tokens", server.post("/v1/chat/completions", {
        "messages": TALK, **GREEDY, "max_completion_tokens": 2})[1]["usage"]["completion_tokens"] == 2)  # fmt: skip

    tool = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for body, sentence in [
        ({"messages": TALK, "tools": tool}, "no place for them"),
        ({"messages": TALK, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": TALK, "response_format": {"type": "json_schema"}}, "response_format"),
        ({"messages": TALK, "n": 2}, "n: one answer"),
        ({"messages": TALK, "n": "two"}, "n: a whole number"),
        ({"messages": []}, "messages"),
        ({}, "messages"),
        ({"messages": "hi"}, "messages: an array is expected"),
        ({"messages": [7]}, "messages: entry 0"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages: entry 0"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "parts of type"),
        ({"messages": TALK, "temperature": "hot"}, 'temperature: a number from 0 to 100 is expected, found "hot"'),
        ({"messages": TALK, "temperature": -1}, "temperature"),
        ({"messages": TALK, "max_tokens": 0}, "max_tokens"),
        ({"messages": TALK, "top_logprobs": 3}, "logprobs"),
        ({"messages": TALK, "stop": [1]}, "stop"),
        ({"messages": TALK, "stop": ["x"] * 100}, "stop"),
        ({"messages": TALK, "logit_bias": {"x": 1}}, "logit_bias"),
        ({"messages": TALK, "logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"messages": TALK, "logit_bias": [[1]]}, "logit_bias"),
        ({"messages": TALK, "stream": "yes"}, "stream: true or false"),
        ({"messages": TALK, "stream_options": 1}, "stream_options"),
        ({"messages": TALK, "frequency_penalty": 0.5}, "frequency_penalty"),
        ({"messages": TALK, "seed": 1.5}, "seed"),
        ({"messages": TALK, "tool_choice": "required", "tools": tool}, "tool_choice"),
    ]:
        server.refused(400, sentence, "POST", "/v1/chat/completions", body)
    server.refused(400, "the context holds", "POST", "/v1/completions", {"prompt": "word " * 4000})
    server.refused(400, "one prompt", "POST", "/v1/completions", {"prompt": ["a", "b"]})
    server.refused(501, "is a decoder", "POST", "/v1/embeddings", {"input": "x"})


def sources():
    """A model that answers to a source: one slot, a source at a time."""
    with Server("tests/golden/families/t5", "-np", "4") as server:
        answers = []
        for prompt in ["a b c", "d e f", "a b c"]:
            status, answer = server.post("/completion", {"prompt": prompt, "n_predict": 6, "temperature": 0, "n_probs": 1,
                                                         "ignore_eos": True})  # fmt: skip
            check("an answer to a source", status == 200 and answer["tokens_predicted"] >= 1, answer)
            answers.append([e["logprob"] for e in answer["completion_probabilities"]])
        check("which is forgotten behind it", all(near(a, b) for a, b in zip(answers[0], answers[2])), answers)
        check("its encoder embeds", server.post("/v1/embeddings", {"input": "a"})[0] == 200)


def tools():
    """A template that shows its tools, and a model that answers whatever it likes."""
    template = "{% if tools %}{{ tools[0].function.name }} {% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
    with tempfile.NamedTemporaryFile("w", suffix=".jinja") as file:
        file.write(template)
        file.flush()
        with Server(TINY, "--chat-template-file", file.name) as server:
            tool = [{"type": "function", "function": {"name": "weather"}}]
            prompt = server.post("/apply-template", {"messages": TALK, "tools": tool})
            check("tools reach the template", prompt == (200, {"prompt": "weather a b c"}), prompt)
            none = server.post("/apply-template", {"messages": TALK, "tools": tool, "tool_choice": "none"})
            check("unless none is to be called", none == (200, {"prompt": "a b c"}), none)
            status, answer = server.post("/v1/chat/completions", {"messages": TALK, "tools": tool, **GREEDY})
            check("an answer with tools", status == 200 and answer["usage"]["completion_tokens"] == 8, answer)


def saved():
    with tempfile.TemporaryDirectory() as folder, Server(TINY, "-np", "2", "--slot-save-path", folder) as server:
        body = {"prompt": "hello world", **GREEDY, "max_tokens": 4}
        one = server.post("/v1/completions", body)[1]
        slot = next(s["id"] for s in server.get("/slots")[1] if s["n_past"] > 0)
        status, answer = server.post(f"/slots/{slot}?action=save", {"filename": "a.session"})
        check("saved", status == 200 and answer["n_saved"] > 4 and os.listdir(folder) == ["a.session"], answer)
        other = 1 - slot
        status, again = server.post(f"/slots/{other}?action=restore", {"filename": "a.session"})
        check("restored", status == 200 and again["n_restored"] == answer["n_saved"], again)
        check("erased", server.post(f"/slots/{slot}?action=erase", {})[1]["n_erased"] == answer["n_saved"])
        two = server.post("/v1/completions", body)[1]
        check("goes on from it", two["choices"] == one["choices"] and two["timings"]["cache_n"] > 0, two)
        for name in ["../a.session", "a/b", "/etc/passwd", "..", ".x", "", "a\\b", "x" * 200, 7, None, "ä"]:
            server.refused(400, "filename", "POST", f"/slots/{slot}?action=save", {"filename": name})
        check("nothing else was written", os.listdir(folder) == ["a.session"])
        status, answer = server.post("/slots/0?action=restore", {"filename": "nowhere"})
        check("a file that is not there", status in (404, 500) and folder not in answer["error"]["message"], answer)
        with open(os.path.join(folder, "bad"), "wb") as file:
            file.write(b"no session")
        status, answer = server.post("/slots/0?action=restore", {"filename": "bad"})
        check("a file that is none", status == 422 and folder not in answer["error"]["message"], answer)
        server.refused(400, "action", "POST", "/slots/0?action=eat", {"filename": "x"})
        server.refused(404, "no slot", "POST", "/slots/7?action=erase", {})
        server.refused(404, "no slot", "POST", "/slots/x?action=erase", {})


def embeddings():
    with Server(ENCODER) as server:
        status, answer = server.post("/v1/embeddings", {"input": ["hello", "world", "hello"]})
        check("/v1/embeddings", status == 200 and [d["index"] for d in answer["data"]] == [0, 1, 2], answer)
        rows = [d["embedding"] for d in answer["data"]]
        check("of length 1", all(near(sum(x * x for x in row), 1) for row in rows))
        check("the same for the same", all(near(a, b) for a, b in zip(rows[0], rows[2])) and rows[0] != rows[1])
        packed = server.post("/v1/embeddings", {"input": "hello", "encoding_format": "base64"})[1]["data"][0]["embedding"]
        raw = base64.b64decode(packed)
        check("base 64", all(near(a, b) for a, b in zip(struct.unpack(f"<{len(raw) // 4}f", raw), rows[0])))
        server.refused(400, "input", "POST", "/v1/embeddings", {})
        server.refused(400, "input", "POST", "/v1/embeddings", {"input": []})
        server.refused(400, "input", "POST", "/v1/embeddings", {"input": {"a": 1}})
        server.refused(400, "encoding_format", "POST", "/v1/embeddings", {"input": "x", "encoding_format": "hex"})
        server.refused(400, "dimensions", "POST", "/v1/embeddings", {"input": "x", "dimensions": 3})
        server.refused(501, "is an encoder", "POST", "/v1/completions", {"prompt": "x"})
        check("it has no busy slot", not any(s["is_processing"] for s in server.get("/slots")[1]))


with Server(TINY, "-np", "3", "--attn", "topk:k=16", "--chat-template", "chatml") as main:
    about(main)
    document(main)
    texts(main)
    completions(main)
    logprobs(main)
    llama(main)
    chat(main)
    check("it ends well", main.end() == 0)
saved()
embeddings()
sources()
tools()
with Server(TINY, verb=()) as bare:
    check("the bare form", bare.get("/health")[0] == 200)
finish()

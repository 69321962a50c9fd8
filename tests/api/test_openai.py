"""OpenAI's own Python client against keyhole serve. The client is not part of keyhole: scripts/setup --tests puts it into
~/.cache/keyhole/python; without it the test is skipped, or fails where KEYHOLE_REQUIRE_OPENAI is 1.
"""

import math
import os
import sys

sys.path.insert(0, os.environ.get("KEYHOLE_PYTHON", os.path.expanduser("~/.cache/keyhole/python")))
os.environ.pop("OPENAI_API_KEY", None)

from serving import ENCODER, TINY, Server, check, finish, skip  # noqa: E402

try:
    import openai
except ImportError as why:
    if os.environ.get("KEYHOLE_REQUIRE_OPENAI") == "1":
        raise
    skip(f"no openai package ({why})")

TALK = [{"role": "user", "content": "a b c"}]
GREEDY = {"temperature": 0, "extra_body": {"ignore_eos": True}}


def client_of(server, key="k"):
    return openai.OpenAI(base_url=f"http://{server.host}:{server.port}/v1", api_key=key, max_retries=0)


def fails(what, kind, call):
    try:
        call()
        check(what, False, "it answered")
    except kind as error:
        check(what, error.status_code >= 400 and str(error), error)


with Server(TINY, "--chat-template", "chatml", "--api-key", "k") as server:
    client = client_of(server)
    models = client.models.list().data
    check("models", [m.id for m in models] == ["llama.gguf"], models)
    name = models[0].id

    chat = client.chat.completions.create(model=name, messages=TALK, max_tokens=6, logprobs=True, top_logprobs=3, **GREEDY)
    said = chat.choices[0].message.content
    check("chat", chat.choices[0].message.role == "assistant" and chat.choices[0].finish_reason == "length", chat)
    check("its usage", chat.usage.completion_tokens == 6 and chat.usage.total_tokens == chat.usage.prompt_tokens + 6)
    tokens = chat.choices[0].logprobs.content
    check("its logprobs", len(tokens) == 6 and all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in tokens))
    check("texts of its tokens", "".join(t.token for t in tokens).strip() == said.strip(), said)
    check("ids beside them", all(isinstance(t.id, int) for t in tokens))

    stream = client.chat.completions.create(model=name, messages=TALK, max_completion_tokens=6, stream=True,
                                            stream_options={"include_usage": True}, **GREEDY)  # fmt: skip
    pieces = list(stream)
    check("a stream says the same", "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == said)
    check("why it ended", [p.choices[0].finish_reason for p in pieces if p.choices][-1] == "length")
    check("and its usage", pieces[-1].usage.completion_tokens == 6)
    with client.chat.completions.create(model=name, messages=TALK, stream=True, max_tokens=90, **GREEDY) as early:
        next(iter(early))

    text = client.completions.create(model=name, prompt="hello", max_tokens=5, logprobs=2, **GREEDY)
    check("completions", text.object == "text_completion" and text.choices[0].text)
    check("their logprobs", len(text.choices[0].logprobs.token_logprobs) == 5, text)
    parts = client.completions.create(model=name, prompt="hello", max_tokens=5, stream=True, **GREEDY)
    check("streamed", "".join(p.choices[0].text for p in parts) == text.choices[0].text)
    stop = text.choices[0].text[2:4]
    ended = client.completions.create(model=name, prompt="hello", max_tokens=5, stop=stop, **GREEDY)
    check("stop", ended.choices[0].finish_reason == "stop" and stop not in ended.choices[0].text)
    one = client.completions.create(model=name, prompt="hello", max_tokens=9, seed=3, temperature=1.2)
    two = client.completions.create(model=name, prompt="hello", max_tokens=9, seed=3, temperature=1.2)
    check("seed", one.choices[0].text == two.choices[0].text)
    barred = client.chat.completions.create(model=name, messages=TALK, max_tokens=1, logit_bias={str(tokens[0].id): -100},
                                            logprobs=True, **GREEDY)  # fmt: skip
    check("logit_bias", barred.choices[0].logprobs.content[0].id != tokens[0].id)

    fails("a wrong key", openai.AuthenticationError, lambda: client_of(server, "wrong").models.list())
    fails("a wrong request", openai.BadRequestError, lambda: client.chat.completions.create(model=name, messages=[]))
    fails("two answers", openai.BadRequestError, lambda: client.chat.completions.create(model=name, messages=TALK, n=2))
    fails("a schema", openai.BadRequestError, lambda: client.chat.completions.create(
        model=name, messages=TALK, response_format={"type": "json_object"}))  # fmt: skip
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    fails("tools", openai.BadRequestError, lambda: client.chat.completions.create(model=name, messages=TALK, tools=[tool]))
    fails("embeddings of a decoder", openai.APIStatusError, lambda: client.embeddings.create(model=name, input="x"))

with Server(ENCODER) as server:
    client = client_of(server)
    rows = client.embeddings.create(model="any", input=["hello", "world"]).data
    check("embeddings", len(rows) == 2 and math.isclose(sum(x * x for x in rows[0].embedding), 1, rel_tol=1e-3))
    floats = client.embeddings.create(model="any", input="hello", encoding_format="float").data[0].embedding
    check("in both formats", all(math.isclose(a, b, abs_tol=1e-5) for a, b in zip(floats, rows[0].embedding)))
finish()

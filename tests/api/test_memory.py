# not under: address|thread
"""Many questions one after the other leave nothing behind in a server's memory. Sanitizers keep what was freed, and a shadow of
what was touched, so that resident memory says nothing under them; the one of addresses reports leaks when a server ends."""

import json

from serving import TINY, Server, check, finish

TEXT = "a b c d e f g a b c"
QUESTIONS = [
    ("/v1/why", {"prompt": TEXT}), ("/v1/lens/prompt", {"prompt": TEXT}), ("/v1/activation/raw", {"prompt": TEXT, "hook_point": "resid_post.1"}),
    ("/v1/edit", {"prompt": TEXT, "edits": ["L1H1:zero", "L0N3:scale=-2@1-3"], "max_tokens": 4}),
]  # fmt: skip


def ask(server, rounds):
    answers = [server.request("POST", route, json.dumps(body))[0] for _ in range(rounds) for route, body in QUESTIONS]
    check("all are answered", set(answers) == {200}, set(answers))


def main():
    with Server("-m", TINY) as server:
        ask(server, 20)
        before = server.memory()
        ask(server, 100)
        grown = server.memory() / before
        check("400 questions later the memory is the same", grown < 1.02, grown)
        check("it ends well", server.end() == 0)
    finish()


main()

"""The package keyhole_lm against a C compiler's layouts, the identities of the pass, and the program's --json.

The library is the one of the build under test. Without numpy the test is skipped, unless KEYHOLE_REQUIRE_NUMPY=1.
"""

# not under: address|thread|undefined|memory

import ctypes
import json
import os
import subprocess
import sys
import tempfile

sys.path[:0] = ["python", "examples"]
sys.path.append(os.environ.get("KEYHOLE_PYTHON", os.path.expanduser("~/.cache/keyhole/python")))
KEYHOLE, BUILD = os.environ["KEYHOLE"], os.environ["KEYHOLE_BUILD"]
os.environ["KEYHOLE_LIBRARY"] = BUILD + "/libkeyhole.so"
TINY, PARALLEL = "tests/golden/tiny/llama.gguf", "tests/golden/families/gptneox"
TEXT, EDIT = "hello world, a b c", "L1H1:zero"
failures, checks = [], 0


def check(what, good, *more):
    global checks
    checks += 1
    if not good:
        failures.append(what)
        print("FAILED:", what, *more, flush=True)


def skip(why):
    print("skipped:", why)
    sys.exit(77)


try:
    import numpy
except ImportError as error:
    if os.environ.get("KEYHOLE_REQUIRE_NUMPY") == "1":
        raise
    skip(f"no numpy ({error})")
if not os.path.exists(os.environ["KEYHOLE_LIBRARY"]):
    skip("this build has no shared library")

import lens_grid  # noqa: E402

from keyhole_lm import KeyholeError, Model, _library  # noqa: E402


def ask(verb, *words):
    """What the program says with --json, frame by frame."""
    answer = subprocess.run([KEYHOLE, verb, "-m", TINY, "-p", TEXT, "--json", *words], capture_output=True, check=True).stdout
    return [json.loads(line) for line in answer.decode().splitlines()]


def refused(what, sentence, call):
    try:
        call()
        check(what, False, "it answered")
    except KeyholeError as error:
        check(what, sentence in str(error), error)


def layouts():
    lines, structs = [], [s for s in vars(_library.C).values() if issubclass(s, ctypes.Structure)]
    for s in structs:
        lines.append(f'printf("{s.__name__} %zu\\n", sizeof({s.__name__}));')
        lines += [f'printf("{s.__name__}.{n} %zu\\n", offsetof({s.__name__}, {n}));' for n, _ in s._fields_]
    program = "#include <keyhole/keyhole.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n%s\n}\n" % "\n".join(lines)
    with tempfile.TemporaryDirectory(prefix="keyhole-python-") as folder:
        with open(folder + "/layout.c", "w") as file:
            file.write(program)
        compiler = os.environ.get("CC", "cc").split()
        subprocess.run([*compiler, "-Iinclude", folder + "/layout.c", "-o", folder + "/layout"], check=True)
        said = dict(line.split() for line in subprocess.check_output([folder + "/layout"], text=True).splitlines())
    for s in structs:
        check(f"size of {s.__name__}", said[s.__name__] == str(ctypes.sizeof(s)), said[s.__name__], ctypes.sizeof(s))
        for n, _ in s._fields_:
            check(f"{s.__name__}.{n}", said[f"{s.__name__}.{n}"] == str(getattr(s, n).offset))


def names(model):
    pairs = [("resid_pre.1", "blocks.1.hook_resid_pre"), ("attn_in.1", "blocks.1.attn.hook_in"), ("q.1", "blocks.1.attn.hook_q"),
             ("k.1", "blocks.1.attn.hook_k"), ("value.1", "blocks.1.attn.hook_v"), ("z.1", "blocks.1.attn.hook_z"),
             ("attn_out.1", "blocks.1.attn.hook_out"), ("attn_out_post.1", "blocks.1.hook_attn_out"),
             ("resid_mid.1", "blocks.1.hook_resid_mid"), ("mlp_in.1", "blocks.1.mlp.hook_in"), ("mlp_pre.1", "blocks.1.mlp.hook_pre"),
             ("mlp_pre_linear.1", "blocks.1.mlp.hook_pre_linear"), ("mlp_act.1", "blocks.1.mlp.hook_post"),
             ("mlp_out.1", "blocks.1.mlp.hook_out"), ("mlp_out_post.1", "blocks.1.hook_mlp_out"),
             ("resid_post.1", "blocks.1.hook_resid_post"), ("resid_mid.0", "ffn_inp-0"), ("resid_post.0", "l_out-0")]  # fmt: skip
    logits, cache = model.run_with_cache(TEXT, [name for pair in pairs for name in pair] + ["resid_pre.0", "embeddings", "logits"])
    for canonical, alias in pairs:
        check(f"{alias} is {canonical}", numpy.array_equal(cache[canonical], cache[alias]) and cache[canonical].any())
    T, info = len(model.tokens(TEXT)), model.info
    check("logits", logits.shape == (T, info["vocabulary"]) and logits.dtype == numpy.float32)
    check("logits is a point", numpy.array_equal(logits, cache["logits"]))
    check("z has heads", cache["z.1"].shape == (T, info["heads"], info["head_width"]))
    check("k has key heads", cache["k.1"].shape == (T, info["key_heads"], info["head_width"]))
    check("embeddings begin the stream", numpy.array_equal(cache["embeddings"], cache["resid_pre.0"]))
    check("between", numpy.array_equal(cache["resid_pre.1"] + cache["attn_out_post.1"], cache["resid_mid.1"]))
    check("after", numpy.array_equal(cache["resid_mid.1"] + cache["mlp_out_post.1"], cache["resid_post.1"]))
    for name, sentence in [("blocks.1.attn.hook_pattern", "attn_rows.1"), ("blocks.1.attn.hook_attn_scores", "attn_rows.1"),
                           ("blocks.1.ln2.hook_normalized", "mlp_in.1"), ("hook_embed", "embeddings"), ("blocks.0.hook_attn_in", "attn_in.0"),
                           ("blocks.1.attn.hook_rot_q", "q.1"), ("ln_final.hook_normalized", "final_norm"), ("resid_post.2", "layers 0 to 1"),
                           ("resid_post", "resid_post.0"), ("logits.1", "no layer"), ("cross_z.0", "no attention to an encoder"),
                           ("blocks.0.hook_nothing", "is no point")]:  # fmt: skip
        refused(name, sentence, lambda name=name: model.run_with_cache(TEXT, [name]))


def rows(model):
    T = len(model.tokens(TEXT))
    found = model.run_with_cache(TEXT, ["attn_rows.1"])[1]["attn_rows.1"]
    check("a row for each head and position", {(h, p) for h, p, _, _ in found} == {(h, p) for h in range(9) for p in range(T)})
    check("full attention sees all keys", all(list(keys) == list(range(p + 1)) for _, p, keys, _ in found))
    check("weights sum to 1", all(abs(weights.sum() - 1) < 1e-5 for _, _, _, weights in found))
    with Model(TINY, attn="topk:k=3") as few:
        found = few.run_with_cache(TEXT, ["attn_rows.1"])[1]["attn_rows.1"]
        check("top-3 keeps 3", {len(keys) for _, _, keys, _ in found} == {1, 2, 3})


def rotated(x):
    """Transformers' rotation: dimension i with i + half, base 10,000."""
    half = x.shape[-1] // 2
    angle = numpy.arange(len(x))[:, None, None] * 10000.0 ** (-numpy.arange(half) / half)
    a, b = x[..., :half].astype(float), x[..., half:].astype(float)
    return numpy.concatenate((a * numpy.cos(angle) - b * numpy.sin(angle), b * numpy.cos(angle) + a * numpy.sin(angle)), -1)


def dimensions():
    """Queries and keys have the order of other tools: rotated as they rotate them, they give the weights of attention."""
    with Model(TINY, precision="f32", cache="f32") as model:
        _, cache = model.run_with_cache(TEXT, ["q.1", "k.1", "attn_rows.1"])
        q, k = rotated(cache["q.1"]), rotated(cache["k.1"])
        for head, position, keys, weights in cache["attn_rows.1"]:
            scores = k[keys, head // (q.shape[1] // k.shape[1])] @ q[position, head] / q.shape[-1] ** 0.5
            expected = numpy.exp(scores - scores.max())
            good = numpy.allclose(expected / expected.sum(), weights, atol=1e-5)
            check(f"weights of head {head}, position {position}", good, weights, expected / expected.sum())
            if not good:
                return
        base = model.logits(TEXT)
        check("a hook that copies them changes nothing", numpy.array_equal(base, model.logits(TEXT, hooks={"q.1": lambda q, _: q.copy()})))
        turned = model.logits(TEXT, hooks={"q.1": lambda q, _: -q})
        check("one that turns both round changes nothing",
              numpy.allclose(base, model.logits(TEXT, hooks={"q.1": lambda q, _: -q, "k.1": lambda k, _: -k}), atol=1e-4))  # fmt: skip
        check("but one of them does", numpy.abs(base - turned).max() > 1e-3)


def hooks(model):
    base, zeroed = model.logits(TEXT), model.logits(TEXT, edits=[EDIT])
    seen = []

    def nothing(array, position):
        seen.append((array.shape, position))
        return array.copy()

    same = model.logits(TEXT, hooks={"resid_post.0": nothing, "blocks.1.attn.hook_z": nothing, "mlp_act.1": nothing})
    check("a hook that changes nothing changes no bit", numpy.array_equal(base, same) and len(seen) == 3, seen)

    def zero(z, position):
        z[:, 1] = 0

    check("a head zeroed by a hook", numpy.array_equal(model.logits(TEXT, hooks={"z.1": zero}), zeroed))
    check("the edit does something", numpy.abs(base - zeroed).max() > 1e-3)
    _, cache = model.run_with_cache(TEXT, ["z.1"], hooks={"blocks.1.attn.hook_z": zero})
    check("what is kept is what the hook left", not cache["z.1"][:, 1].any() and cache["z.1"][:, 0].any())
    other = model.logits(TEXT, hooks={"embeddings": lambda x, position: 2 * x})
    check("a new array", numpy.abs(base - other).max() > 1e-3)
    long = [1 + i % 50 for i in range(100)]
    with Model(TINY) as second:  # blocks of 32 of the inspector, one batch of the session
        whole = second.run_with_cache(long, ["resid_post.1"])
        blocks = second.run_with_cache(long, ["resid_post.1"], edits=["L1H1:scale=1"])
        check("blocks are in their places", numpy.allclose(whole[1]["resid_post.1"], blocks[1]["resid_post.1"], atol=1e-4))
        check("and their logits", numpy.allclose(whole[0], blocks[0], atol=1e-4))
    try:
        model.logits(TEXT, hooks={"z.0": lambda z, position: 1 / 0})
        check("an exception comes out", False)
    except ZeroDivisionError:
        check("the model goes on after it", numpy.array_equal(model.logits(TEXT), base))
    refused("a hook on rows", "cannot be changed by a hook", lambda: model.logits(TEXT, hooks={"attn_rows.0": nothing}))
    refused("hooks and edits", "do not go together", lambda: model.logits(TEXT, hooks={"z.0": nothing}, edits=[EDIT]))


def busy(model):
    """What a hook may not do, and that it changes nothing."""
    base, inner = model.logits(TEXT), []

    def again(z, position):
        inner.append(model.piece(1))
        model.logits(TEXT)

    refused("a pass inside a pass", "neither start a pass", lambda: model.logits(TEXT, hooks={"z.0": again}))
    refused("a model closed by its hook", "nor close", lambda: model.logits(TEXT, hooks={"z.0": lambda z, position: model.close()}))
    check("both leave the model as it was", len(inner) == 1 and numpy.array_equal(model.logits(TEXT), base))


def words(model):
    """Ids and texts that come in, and those that end an answer."""
    ids = model.tokens(TEXT)
    check("ids are an array", ids.dtype == numpy.int32 and model.text(ids) == TEXT)
    check("ids of numpy", numpy.array_equal(model.logits(ids.astype(numpy.int64)), model.logits([int(i) for i in ids])))
    best = model.logits(ids)[-1].argmax()
    check("a token of numpy", model.why(TEXT, a=best).a.id == best)
    check("a token as text", model.why(TEXT, a="a").a.id == model.tokens("a")[0])
    refused("two tokens for one", "one is expected", lambda: model.why(TEXT, a="a b"))
    for what, error, wrong in (("a fraction", TypeError, [1.5]), ("an id of 40 bits", OverflowError, [1 << 40])):
        try:
            model.logits(wrong)
            check(what, False, "it was read")
        except error:
            check(what, True)
    refused("an id that is none", "-1", lambda: model.logits([-1]))
    long, end = model.generate(TEXT, 12), model.generate(TEXT, 12).text[4:6]
    short = model.generate(TEXT, 12, stop=end)
    check("an answer stops", (short.text, short.finish) == (long.text.partition(end)[0], "stop") and long.finish == "length", short)
    check("several texts stop", model.generate(TEXT, 12, stop=["never", end]) == short)


def transformer_lens(name):
    """Hooks under TransformerLens' names do what they do there: its log-probabilities, committed as goldens."""
    with open(f"tests/golden/inspect/{name}.json") as file:
        golden = json.load(file)
    with Model(f"tests/golden/families/{name}", precision="f32", cache="f32") as model:
        h, ids, z1, post = model.info["heads"] - 1, golden["ids"], "blocks.1.attn.hook_z", "blocks.0.mlp.hook_post"
        mean = model.run_with_cache(ids, z1)[1][z1][:, 0].mean(axis=0)

        def write(index, change):
            def hook(x, position):
                x[index] = change(x[index])
            return hook

        every, zero = slice(None), lambda x: 0 * x  # noqa: E731
        cases = {
            "L1H1:zero": {z1: write((every, 1), zero)},
            f"L0H{h}:scale=-1.5": {"blocks.0.attn.hook_z": write((every, h), lambda x: -1.5 * x)},
            "L1H0:mean": {z1: write((every, 0), lambda x: mean)},
            "L0N3:zero": {post: write((every, 3), zero)},
            "L0N7:scale=-4": {post: write((every, 7), lambda x: -4 * x)},
            "L0N5:set=2.5@last": {post: write((len(ids) - 1, 5), lambda x: 2.5)},
            "0_attn_out:zero": {"blocks.0.hook_attn_out": lambda x, position: 0 * x},
            "1_mlp_out:zero": {"blocks.1.hook_mlp_out": lambda x, position: 0 * x},
            "0_mlp_out:scale=0.5@3-34": {"blocks.0.hook_mlp_out": write(slice(3, 35), lambda x: 0.5 * x)},
            "L1H1:zero L0N3:scale=-2": {z1: write((every, 1), zero), post: write((every, 3), lambda x: -2 * x)},
        }  # fmt: skip
        done = 0
        for case in golden["ablations"]:
            hooks = cases.get(" ".join(case["edits"]))
            if hooks:
                last = model.logits(ids, hooks=hooks)[-1].astype(float)
                found = last[golden["sampled"]] - last.max() - numpy.log(numpy.exp(last - last.max()).sum())
                gap = numpy.abs(found - case["logprobs"]).max()
                check(f"{name}: hooks for {case['edits']}", gap < 1e-4, gap)
                done += 1
        check(f"{name}: all of them", done == len(cases), done)


def parallel():
    with Model(PARALLEL) as model:
        ids = list(range(2, 12))
        refused("parallel blocks", "none between them", lambda: model.run_with_cache(ids, ["blocks.0.hook_resid_mid"]))
        refused("no gate", "no second factor", lambda: model.run_with_cache(ids, ["mlp_pre_linear.0"]))
        cache = model.run_with_cache(ids, ["resid_pre.0", "attn_out_post.0", "mlp_out_post.0", "resid_post.0"])[1]
        check("three add up", numpy.array_equal(cache["resid_pre.0"] + cache["attn_out_post.0"] + cache["mlp_out_post.0"], cache["resid_post.0"]))


def program(model):
    """What the program says in JSON, to its 12 digits."""
    digits = lambda x: float(f"{x:.12g}")  # noqa: E731
    cells = {(c.position, c.layer): c for c in model.lens(TEXT, top=5)}
    frames = [f for f in ask("lens") if f["type"] == "token"]
    check("all cells", len(cells) == 2 * len(frames) > 0)
    for f in frames:
        for layer in range(2):
            c = cells[f["position"], layer]
            check("ids of a cell", [t.id for t in c.top] == f["top_ids"]["after"][layer])
            pairs = zip((t.text for t in c.top), f["top_tokens"]["after"][layer])
            check("texts of a cell", all(a == b for a, b in pairs if "\ufffd" not in a + b), c.top)
            check("shares of a cell", [digits(t.probability) for t in c.top] == f["top_probs"]["after"][layer])
            check("entropy and KL", (digits(c.entropy), digits(c.kl)) == (f["entropy"]["after"][layer], f["kl"]["after"][layer]))
    grid = list(lens_grid.grid(TINY, TEXT))
    check("the grid's shape", len(grid) == 3 and {len(row) for row in grid} == {len(frames) + 1})
    check("the grid's tokens", grid[0][1:] == [repr(f["token"])[1:-1] for f in frames], grid[0])
    for i, layer in ((1, 1), (2, 0)):
        shares = [f"{100 * f['top_probs']['after'][layer][0]:.1f}" for f in frames]
        check("the grid's digits", [cell.split()[-2] for cell in grid[i][1:]] == shares)
    for words in ([], ["--temp", "0.8", "--seed", "7"]):
        frames = ask("edit", "--edit", EDIT, "-n", "12", *words)
        base, edited = [[f for f in frames if f["type"] == kind] for kind in ("base", "edited")]
        sampler = {"temperature": 0.8, "seed": 7} if words else {}
        for frames, edits in ((base, ()), (edited, [EDIT])):
            answer = model.generate(TEXT, 12, edits=edits, **sampler)
            check("generated tokens", answer.tokens == [f["id"] for f in frames], answer.tokens, frames)
            check("their logprobs", [digits(p) for p in answer.logprobs] == [f["logprob"] for f in frames])
    why, mine = ask("why")[0], model.why(TEXT)
    check("why: total and sum", (digits(mine.total), digits(mine.sum)) == (why["total"], why["sum"]), why, mine)
    check("why adds up", abs(mine.total - mine.sum) < 1e-3 and len(mine.attention) == 2)
    check("why of a token", model.why(TEXT, a=mine.b.id, b=mine.a.id).total == -mine.total)
    check("neurons, strongest first", [n.layer for n in model.neurons(TEXT, most=3)] == [0] * 3 + [1] * 3)
    compared = model.compare(TEXT, [EDIT])
    check("compared positions", len(compared) == len(model.tokens(TEXT)) and compared[-1].kl > 0)
    logits = model.logits(TEXT)
    check("the most probable", [c.base_top.id for c in compared] == list(logits.argmax(axis=1)))


with Model(TINY) as tiny:
    layouts()
    names(tiny)
    rows(tiny)
    hooks(tiny)
    dimensions()
    busy(tiny)
    words(tiny)
    program(tiny)
    refused("an edit that is none", "L1H99", lambda: tiny.generate(TEXT, edits=["L1H99:zero"]))
    refused("a text of nothing", "at least one", lambda: tiny.logits(""))
parallel()
for family in ("llama", "qwen2", "gpt2", "gptneox", "gemma2"):
    transformer_lens(family)
refused("a closed model", "closed", lambda: tiny.logits(TEXT))
refused("no such file", "nowhere.gguf", lambda: Model("nowhere.gguf"))
refused("a cache that is none", "q8_0", lambda: Model(TINY, cache="f64"))
refused("an encoder", "decoder", lambda: Model("tests/golden/families/bert-embed"))
alone = dict(os.environ, KEYHOLE_LIBRARY="/nowhere/libkeyhole.so")
said = subprocess.run([sys.executable, "-c", "import sys; sys.path[:] = %r\nimport keyhole_lm; keyhole_lm.Model('x')" % sys.path],
                      env=alone, capture_output=True, text=True)  # fmt: skip
check("no library: a sentence", "/nowhere/libkeyhole.so could not be opened" in said.stderr, said.stderr)
print(f"{checks} checks, {len(failures)} failed")
sys.exit(bool(failures))

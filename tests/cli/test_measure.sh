# keyhole ppl, bench and calibrate on a tiny model: tables, JSON, files, lists.
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
tiny=tests/golden/tiny/llama.gguf
export XDG_CACHE_HOME=$scratch/cache
head -c 400 examples/persuasion.txt >"$scratch/text"

runs 0 "$keyhole" ppl "$tiny" -f "$scratch/text" -c 64 --attn full --attn topk:k=4 -q
has "$out" "attn"
has "$out" "topk:k=4"
runs 0 "$keyhole" ppl "$tiny" "$scratch/text" -c 64 --attn full --attn topk:k=4 --attn topk:k=64 --json --tokens -q
python '
r = json.load(open(sys.argv[1]))["results"]
assert [x["attn"] for x in r] == ["full", "topk:k=4", "topk:k=64"], r
for x in r:
    for key in "attn ctx tokens nll ppl kl same_top1 seconds peak_bytes".split():
        assert key in x, key
    scored = [v for v in x["token_nll"] if v is not None]
    assert len(scored) == x["tokens"], (len(scored), x["tokens"])
    assert abs(sum(scored) / len(scored) - x["nll"]) < 1e-4
    assert abs(2.718281828459045 ** x["nll"] / x["ppl"] - 1) < 1e-6
    assert x["ctx"] == 64
assert r[0]["kl"] == 0 and r[0]["same_top1"] == 1
assert r[1]["kl"] > 1e-6 > abs(r[2]["kl"]), r
' "$scratch/out"
runs 0 "$keyhole" ppl "$tiny" -f "$scratch/text" -c 64 --like llama --chunks 2 --json -q
python 'r = json.load(open(sys.argv[1]))["results"][0]; assert 60 <= r["tokens"] <= 64, r' "$scratch/out"
runs 0 "$keyhole" ppl "$tiny" -f "$scratch/text" -c 32 --tokens -q
has "$out" 'index,id,"nll full"'

# Ids instead of text, and raw logits of one window.
"$keyhole" tokenize "$tiny" -f "$scratch/text" --ids -q | head -40 >"$scratch/ids"
runs 0 "$keyhole" ppl "$tiny" --ids "$scratch/ids" --json -q
python 'r = json.load(open(sys.argv[1]))["results"][0]; assert r["tokens"] == 39, r' "$scratch/out"
runs 0 "$keyhole" ppl "$tiny" --ids "$scratch/ids" -c 40 --logits "$scratch/logits"
vocabulary=$("$keyhole" show "$tiny" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["vocabulary"])')
check "the logits have their size" test "$(wc -c <"$scratch/logits")" = $((40 * vocabulary * 4))
runs 0 "$keyhole" ppl "$tiny" --ids "$scratch/ids" --json --tokens -q
python '
import math
v, ids = int(sys.argv[2]), [int(x) for x in open(sys.argv[3])]
raw = open(sys.argv[4], "rb").read()
nll = json.load(open(sys.argv[1]))["results"][0]["token_nll"]
for t in range(39):
    row = struct.unpack_from(f"{v}f", raw, t * v * 4)
    top = max(row)
    want = math.log(sum(math.exp(x - top) for x in row)) + top - row[ids[t + 1]]
    assert abs(want - nll[t + 1]) < 1e-3, (t, want, nll[t + 1])
' "$scratch/out" "$vocabulary" "$scratch/ids" "$scratch/logits"
printf '1\nx\n' >"$scratch/bad"
runs 1 "$keyhole" ppl "$tiny" --ids "$scratch/bad"
has "$err" "line 2: a token id from 0 to"

runs 0 "$keyhole" bench "$tiny" -p 16,32 -n 4 -d 0,8 -r 1 -t 1 --attn full --attn topk:k=8 --json -q
python '
r = json.load(open(sys.argv[1]))["results"]
rows = [(x["attn"], x["test"], x["n"], x["depth"]) for x in r]
want = [(a, t, n, d) for a in ("full", "topk:k=8") for d in (0, 8) for t, n in (("pp", 16), ("pp", 32), ("tg", 4))]
assert rows == want, rows
assert all(x["tokens_per_second"] > 0 and x["peak_bytes"] > 0 for x in r)
assert all(0 < x["attention_share"] < 1 for x in r), r
' "$scratch/out"
runs 0 "$keyhole" bench "$tiny" -p 0 -n 4 -r 1 -q
lacks "$out" " pp "
runs 2 "$keyhole" bench "$tiny" -p 0 -n 0
runs 2 "$keyhole" bench "$tiny" -p 1,,2
"$keyhole" bench "$tiny" -p 16,16,16,16 -n 0 -r 1 -q 2>"$scratch/err" | head -n 1 >/dev/null
check "a closed pipe is no error" test "${PIPESTATUS[0]}" = 0
check "and makes no noise: $(cat "$scratch/err")" test ! -s "$scratch/err"

# On a terminal, long work shows progress; otherwise it does not.
if command -v script >/dev/null && script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    script -qec "'$keyhole' ppl '$tiny' -f examples/persuasion.txt -c 128 --chunks 120" /dev/null </dev/null >"$scratch/out" 2>&1
    has "$(tr -d '\r' <"$scratch/out")" "ppl"
fi
runs 0 "$keyhole" ppl "$tiny" -f "$scratch/text" -c 64
lacks "$err" "/s"
finish

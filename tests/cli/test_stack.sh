# keyhole bench stack: tables, JSON, CSV, refusals, and that neither chunks nor threads change a result.
. tests/cli/lib.sh

small="--layers 2 --heads 4 --kv-heads 2 --head-dim 16 --ff 100"

# shellcheck disable=SC2086
runs 0 "$keyhole" bench stack -L 90,130 $small -t 1,2 -k 8 --ff-topk 0,20 --pass fwd+bwd --json -q
python '
whole = json.load(open(sys.argv[1]))
assert list(whole) == ["machine", "results", "command"], whole
r = whole["results"]
first = "impl work attn pass L heads head_dim k threads seconds_min seconds_median peak_bytes".split()
want = [(t, L, f) for t in (1, 2) for L in (90, 130) for f in (0, 20)]
assert [(x["threads"], x["L"], x["ff_k"]) for x in r] == want, r
sums = {}
for x in r:
    assert list(x)[:len(first)] == first, list(x)
    assert (x["impl"], x["work"], x["attn"], x["pass"], x["k"]) == ("keyhole", "stack", "topk:k=8", "fwd+bwd", 8), x
    assert (x["layers"], x["kv_heads"], x["ff"], x["causal"], x["chunk"], x["kept"]) == (2, 2, 100, True, 1024, "keys"), x
    L, D = x["L"], 64
    assert x["saved_bytes"] == L * D * 4 + 2 * 4 * L * (8 * 2 + 4 + 8), x
    assert 0 < x["peak_bytes"] < x["process_bytes"] < 1 << 28, x
    flops = 2 * (6 * (D * D + D * 64 + D * D + 2 * 100 * D) + 14 * (L + 1) / 2 * D)
    assert abs(x["gigaflops"] * 1e9 * x["seconds_min"] / (flops * L) - 1) < 1e-6, x
    assert abs(x["us_per_token"] * 1e-6 * L / x["seconds_min"] - 1) < 1e-6, x
    assert sums.setdefault((L, x["ff_k"]), x["checksum"]) == x["checksum"], "threads change the result"
' "$scratch/out"

cp "$scratch/out" "$scratch/whole"
# shellcheck disable=SC2086
runs 0 "$keyhole" bench stack -L 90 $small -t 2 -k 8 --ff-topk 20 --pass fwd+bwd --chunk 11 --csv -q
python '
rows = list(csv.DictReader(x for x in open(sys.argv[1]) if not x.startswith("#")))
whole = json.load(open(sys.argv[2]))["results"]
want = [x["checksum"] for x in whole if x["L"] == 90 and x["ff_k"] == 20]
assert len(rows) == 1 and "%.9g" % float(rows[0]["checksum"]) == "%.9g" % want[0], (rows, want)
assert None not in rows[0] and None not in rows[0].values() and rows[0]["chunk"] == "11", rows
' "$scratch/out" "$scratch/whole"

# The layer of attention alone, forward; what is kept; the table and the page.
# shellcheck disable=SC2086
runs 0 "$keyhole" bench stack -L 64 --layers 1 --heads 2 --head-dim 16 --ff 0 --attn full --no-causal -t 1 --json -q
python '
x = json.load(open(sys.argv[1]))["results"][0]
assert (x["attn"], x["k"], x["saved_bytes"], x["causal"], x["pass"]) == ("full", 0, 0, False, "fwd"), x
assert abs(x["gigaflops"] * 1e9 * x["seconds_min"] / (64 * (8 * 32 * 32 + 4 * 64 * 32)) - 1) < 1e-6, x
' "$scratch/out"
# shellcheck disable=SC2086
runs 0 "$keyhole" bench stack -L 64 $small --pass fwd+bwd --kept input --report "$scratch/page.html"
has "$out" "topk:k=64"
has "$out" "over in/out"
check "the page holds the rows" grep -q '"work": *"stack"' "$scratch/page.html"

refused 2 "--pass: 'bwd' is not one of fwd, fwd+bwd" bench stack --pass bwd
refused 2 "--heads 12 is not a multiple of --kv-heads 5" bench stack --kv-heads 5
refused 2 "contradict" bench stack --causal --no-causal
refused 2 "--kept" bench stack --kept all
runs 2 "$keyhole" bench stack -L 64 --attn "0=full;1-=topk:k=4" -q
has "$err" "one setting for all layers and heads"
finish

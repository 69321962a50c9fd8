# keyhole bench attention, decode and select: tables, JSON, CSV, refusals.
. tests/cli/lib.sh

small="-L 96,130 --heads 4 --kv-heads 2 --head-dim 16 --repeat 2"

# shellcheck disable=SC2086
runs 0 "$keyhole" bench attention $small -t 1,2 --attn full -k 8,16 --json
python '
whole = json.load(open(sys.argv[1]))
assert list(whole) == ["machine", "results", "command"], whole
m, r = whole["machine"], whole["results"]
for key in "cpu isa cores memory_bytes gigaflops_per_core read_gigabytes read_gigabytes_all".split():
    assert key in m, key
assert m["gigaflops_per_core"] > 0.01 and m["read_gigabytes"] > 0.1, m
first = "impl work attn pass L heads head_dim k threads seconds_min seconds_median peak_bytes".split()
want = [(t, a, L) for t in (1, 2) for a in ("full", "topk:k=8", "topk:k=16") for L in (96, 130)]
assert [(x["threads"], x["attn"], x["L"]) for x in r] == want, r
for x in r:
    assert list(x)[:len(first)] == first, list(x)
    assert (x["impl"], x["work"], x["pass"], x["heads"], x["head_dim"]) == ("keyhole", "attention", "fwd", 4, 16), x
    assert x["k"] == {"full": 0, "topk:k=8": 8, "topk:k=16": 16}[x["attn"]], x
    assert 0 < x["seconds_min"] <= x["seconds_median"] and 0 < x["peak_bytes"] < 1 << 30, x
    pairs = x["L"] * (x["L"] + 1) / 2 * 4
    assert abs(x["gigaflops"] * 1e9 * x["seconds_min"] / (pairs * 4 * 16) - 1) < 1e-6, x
    assert abs(x["us_per_query_head"] * 1e-6 * x["L"] * 4 / x["seconds_min"] - 1) < 1e-6, x
    assert x["saved_bytes"] == 0 and x["causal"] is True and x["kv_heads"] == 2, x
' "$scratch/out"

# Forward and backward, whole and in chunks; what is saved is 2 bytes an index.
# shellcheck disable=SC2086
runs 0 "$keyhole" bench attention $small -t 1 --attn topk:k=8 --attn full --pass fwd+bwd --no-causal --json
python '
for x in json.load(open(sys.argv[1]))["results"]:
    rows = x["L"] * 4
    assert x["saved_bytes"] == rows * ((8 * 2 + 4 if x["k"] else 0) + 8), x
    assert x["causal"] is False and x["pass"] == "fwd+bwd", x
    assert abs(x["gigaflops"] * 1e9 * x["seconds_min"] / (rows * x["L"] * 14 * 16) - 1) < 1e-6, x
' "$scratch/out"
# shellcheck disable=SC2086
runs 0 "$keyhole" bench attention $small -t 1 -k 8 --pass fwd+bwd --chunk 40 --json
python '
for x in json.load(open(sys.argv[1]))["results"]:
    assert x["chunk"] == 40 and x["saved_bytes"] == 40 * 4 * (8 * 2 + 4 + 8), x
' "$scratch/out"

# shellcheck disable=SC2086
runs 0 "$keyhole" bench attention $small -t 1 -k 8 --attn "0=full;0.1-=topk:k=4" --csv
python '
lines = open(sys.argv[1]).read().splitlines()
assert lines[0].startswith("# machine: "), lines[0]
rows = list(csv.DictReader(lines[1:]))
assert [(x["attn"], x["L"]) for x in rows] == [(a, L) for a in ("0=full;0.1-=topk:k=4", "topk:k=8") for L in ("96", "130")]
assert all(float(x["seconds_min"]) > 0 and None not in x and None not in x.values() for x in rows), rows
' "$scratch/out"
# shellcheck disable=SC2086
runs 0 "$keyhole" bench attention $small
has "$out" "GFLOP/s a core"
has "$out" "us/query/head"
has "$out" "topk:k=128"

refused 2 "--pass: 'bwd' is not one of fwd, fwd+bwd" bench attention --pass bwd
refused 2 "contradict" bench attention --causal --no-causal
refused 2 "--heads 12 is not a multiple of --kv-heads 5" bench attention --kv-heads 5
refused 2 "-L: 0 is not between 1" bench attention -L 0
refused 2 "choose one" bench attention -L 64 --json --csv
refused 2 "one argument too many" bench attention model.gguf
runs 2 "$keyhole" bench attention -L 64 --attn tpok:k=4 --json
has "$err" "no method is called 'tpok'"
lacks "$out" "results"

runs 0 "$keyhole" bench select -L 100,5000 -k 7,6000 --repeat 1 --json
python '
r = json.load(open(sys.argv[1]))["results"]
kinds = ("gaussian", "heavy", "ascending", "equal", "ties")
assert [(x["scores"], x["L"], x["k"]) for x in r] == [(s, L, k) for s in kinds for L in (100, 5000) for k in (7, 6000)]
for x in r:
    assert (x["impl"], x["work"], x["pass"], x["threads"]) == ("keyhole", "select", "fwd", 1), x
    assert abs(x["ns_per_score"] * 1e-9 * x["L"] / x["seconds_min"] - 1) < 1e-6, x
' "$scratch/out"
runs 0 "$keyhole" bench select -L 64 -k 3 --scores ties --repeat 1
has "$out" "ties"
lacks "$out" "gaussian"
runs 0 "$keyhole" bench select -L 64 -k 3 --scores equal --repeat 1 --csv
has "$out" "keyhole,select,topk:k=3,fwd,64"
runs 0 "$keyhole" bench decode -L 100,3000 --heads 4 --kv-heads 2 --head-dim 32 --attn full -k 8 -t 1 --repeat 1 --json
python '
r = json.load(open(sys.argv[1]))["results"]
assert [(x["work"], x["attn"], x["L"]) for x in r] == [("decode", a, L) for a in ("full", "topk:k=8") for L in (100, 3000)]
for x in r:
    values = x["L"] if x["attn"] == "full" else 8 * 2
    assert abs(x["gigabytes"] * 1e9 * x["seconds_min"] / (2 * 32 * 2 * (x["L"] + values)) - 1) < 1e-6, x
' "$scratch/out"
runs 0 "$keyhole" bench decode -L 3000 --heads 4 --kv-heads 2 --head-dim 32 -k 8 -t 1 --repeat 1 --key-shadow both --json
python '
r = json.load(open(sys.argv[1]))["results"]
assert [(x["attn"], x["key_shadow"]) for x in r] == [("topk:k=8", False), ("topk:k=8 +shadow", True)]
assert all(x["reading_seconds"] > 0 and x["reading_ratio"] > 0 for x in r)
' "$scratch/out"
runs 0 "$keyhole" bench decode -L 64 --heads 2 --head-dim 32 -ctk q8_0 -k 3 -t 1 --repeat 1
has "$out" "GB/s"
runs 2 "$keyhole" bench decode -L 64 --heads 2 --head-dim 20 -ctk q8_0 -k 3
has "$err" "multiple of 32"

refused 2 "--scores: 'random' is not one of all, gaussian" bench select --scores random
finish

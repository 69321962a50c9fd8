# --ff of run, ppl and bench, and keyhole bench ff: tables, JSON, CSV, refusals.
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
tiny=tests/golden/tiny/llama.gguf
export XDG_CACHE_HOME=$scratch/cache
head -c 400 examples/persuasion.txt >"$scratch/text"

# A setting changes the answer's numbers, is echoed, and is combined with each setting of attention.
runs 0 "$keyhole" run "$tiny" -p "Once upon" --raw -n 4 --temp 0 --ff topk:k=9,rule=n --json -q
python 'x = json.load(open(sys.argv[1])); assert x["ff"] == "topk:k=9,rule=n" and x["attn"] == "full", x' "$scratch/out"
runs 0 "$keyhole" run "$tiny" -p "Once upon" --raw -n 4 --temp 0 --json -q
python 'x = json.load(open(sys.argv[1])); assert x["ff"] == "dense", x' "$scratch/out"
runs 0 "$keyhole" ppl "$tiny" -f "$scratch/text" -c 64 --attn full --attn topk:k=4 --ff dense --ff topk:k=6 --ff topk:k=100000 --json -q
python '
r = json.load(open(sys.argv[1]))["results"]
ffs = ["dense", "topk:k=6", "topk:k=100000"]
assert [(x["attn"], x["ff"]) for x in r] == [(a, f) for a in ("full", "topk:k=4") for f in ffs], r
assert r[0]["kl"] == 0 and r[1]["kl"] > 1e-6 and abs(r[2]["kl"]) < 1e-6, r
assert r[2]["nll"] == r[0]["nll"] and r[5]["nll"] == r[3]["nll"] != r[0]["nll"], r
' "$scratch/out"
runs 0 "$keyhole" ppl "$tiny" -f "$scratch/text" -c 64 --ff topk:k=6,rule=g -q
has "$out" "ff "
has "$out" "topk:k=6,rule=g"
runs 0 "$keyhole" ppl "$tiny" -f "$scratch/text" -c 64 -q
lacks "$out" "ff "
runs 0 "$keyhole" ppl "$tiny" -f "$scratch/text" -c 32 --ff topk:k=6 --tokens -q
has "$out" 'index,id,"nll full topk:k=6"'
runs 0 "$keyhole" bench "$tiny" -p 16 -n 2 -r 1 -t 1 --ff dense --ff topk:k=8 --json -q
python '
r = json.load(open(sys.argv[1]))["results"]
assert [(x["ff"], x["test"]) for x in r] == [(f, t) for f in ("dense", "topk:k=8") for t in ("pp", "tg")], r
' "$scratch/out"
runs 0 "$keyhole" bench "$tiny" -p 16 -n 0 -r 1 -t 1 --ff topk:k=8 -q
has "$out" "topk:k=8"
# By layer: rules add up, the text is echoed whole, and what every layer is told alone is told by one setting.
rules='0=dense;1-=topk:k=6,rank=g;*=topk:k=6'
runs 0 "$keyhole" ppl "$tiny" -f "$scratch/text" -c 64 --ff topk:k=6 --ff "$rules" --ff '1-=topk:k=6' --json -q
python '
r = json.load(open(sys.argv[1]))["results"]
assert [x["ff"] for x in r] == ["topk:k=6", sys.argv[2], "1-=topk:k=6"], r
assert r[0]["nll"] == r[1]["nll"] != r[2]["nll"], r
' "$scratch/out" "$rules"
runs 0 "$keyhole" run "$tiny" -p "Once upon" --raw -n 4 --temp 0 --ff '0=topk:k=9;1-=dense' --json -q
python 'x = json.load(open(sys.argv[1])); assert x["ff"] == "0=topk:k=9;1-=dense", x' "$scratch/out"
runs 0 "$keyhole" run tests/golden/families/t5-gated -p "Once upon" --raw -n 4 --temp 0 --ff 'encoder=topk:k=3;decoder=dense' --json -q
python 'x = json.load(open(sys.argv[1])); assert x["ff"] == "encoder=topk:k=3;decoder=dense", x' "$scratch/out"
refused 2 "there is no layer 99" run "$tiny" -p x --ff 99=dense
refused 2 "one stack of layers" run "$tiny" -p x --ff encoder=dense
refused 2 "one setting serves prompts and answers" run "$tiny" -p x --ff prefill=dense
refused 2 "each needs its layers" ppl "$tiny" -f "$scratch/text" -c 64 --ff 'dense;1=topk:k=4' -q
refused 2 "k is a number of neurons from 1 on" run "$tiny" -p x --ff topk:k=0
refused 2 "a rule is g" ppl "$tiny" -f "$scratch/text" -c 64 --ff topk:k=5,rule=best -q
refused 2 "dense or topk:k=K" bench "$tiny" -p 16 -n 0 --ff sparse -q

# The layer alone.
small="-d 40 --ff 130,300 -L 50,70 -k 0,16 -t 1 -r 1"
# shellcheck disable=SC2086
runs 0 "$keyhole" bench ff $small --pass fwd+bwd --json -q
python '
whole = json.load(open(sys.argv[1]))
assert whole["machine"]["gigaflops_per_core"] > 0.01
r = whole["results"]
first = "impl work attn pass L heads head_dim k threads seconds_min seconds_median peak_bytes".split()
want = [(f, t, k) for f in (130, 300) for t in (50, 70) for k in (0, 16)]
assert [(x["ff"], x["L"], x["k"]) for x in r] == want, r
for x in r:
    assert list(x)[:len(first)] == first, list(x)
    assert (x["impl"], x["work"], x["pass"], x["width"], x["act"]) == ("keyhole", "ff", "fwd+bwd", 40, "relu"), x
    assert x["attn"] == ("topk:k=16" if x["k"] else "dense") and x["gated"] is False, x
    assert 0 < x["seconds_min"] <= x["seconds_median"], x
    assert abs(x["gigaflops"] * 1e9 * x["seconds_min"] / (12 * 40 * x["ff"] * x["L"]) - 1) < 1e-6, x
    assert abs(x["us_per_token"] * 1e-6 * x["L"] / x["seconds_min"] - 1) < 1e-6, x
' "$scratch/out"
# shellcheck disable=SC2086
runs 0 "$keyhole" bench ff $small --gated --act silu --rule n --csv -q
python '
lines = [x for x in open(sys.argv[1]) if not x.startswith("#")]
rows = list(csv.DictReader(lines))
assert len(rows) == 8 and rows[1]["attn"] == "topk:k=16,rule=n" and rows[1]["gated"] == "1", rows
assert abs(float(rows[0]["gigaflops"]) * 1e9 * float(rows[0]["seconds_min"]) / (6 * 40 * 130 * 50) - 1) < 0.1, rows[0]
' "$scratch/out"
# shellcheck disable=SC2086
runs 0 "$keyhole" bench ff $small -k 1000
has "$out" "us/token"
has "$out" "dense"
# shellcheck disable=SC2086
runs 0 "$keyhole" bench ff $small --report "$scratch/page.html" -q
check "the page holds the rows" grep -q '"work": *"ff"' "$scratch/page.html"
refused 2 "choose one" bench ff -L 10 --ff 10 --json --csv
refused 2 "--pass" bench ff --pass bwd
finish

# The scripts of bench/peers without a peer and without time: a program that answers as keyhole does, as fast as a
# file says. Regressions are seen and noise is not; rows are kept, not measured twice, and drawn.
. tests/cli/lib.sh
command -v python3 >/dev/null || skip "python3 is missing"

fake=$scratch/keyhole real=$keyhole
cat >"$fake" <<'END'
#!/usr/bin/env python3
import json, os, sys
if "--version" in sys.argv:
    print("keyhole 0.1.0 (abc1234)\ninstruction set: avx512")
    sys.exit()
seconds, share = map(float, open(os.path.join(os.path.dirname(sys.argv[0]), "speed")).read().split())
threads = int(sys.argv[sys.argv.index("-t") + 1]) if "-t" in sys.argv else 1
machine = {"cpu": "Abacus", "isa": "avx512", "cores": 2, "memory_bytes": 1 << 34, "gigaflops_per_core": 100.0,
           "read_gigabytes": 10.0, "read_gigabytes_all": 20.0}
row = {"seconds_min": seconds / threads, "peak_bytes": 1 << 20, "process_bytes": 1 << 24, "peak_share": share}
print(json.dumps({"machine": machine, "results": [row]}))
END
chmod +x "$fake"
export KEYHOLE_PEERS=$scratch/peers
results=$scratch/results
regress() { python3 -B bench/peers/regress --keyhole "$fake" --results "$results" "$@"; }

echo "0.00001 0.5" >"$scratch/speed"
runs 77 regress
has "$out" "skipped: no ratios were recorded for"
runs 0 regress --record
recorded=$(find "$results" -name regress.csv)
has "$(cat "$recorded")" "abc1234,avx512,topk-fb of peak,0.5000"
runs 0 regress
echo "0.00001 0.45" >"$scratch/speed" # within the noise
runs 0 regress
echo "0.00001 0.39" >"$scratch/speed"
runs '1' sh -c "python3 -B bench/peers/regress --keyhole '$fake' --results '$results'; code=\$?
    [ \$code = 77 ] && exit 1; exit \$code" # on a busy machine it proves nothing, and says so
has "$out" "FELL"
has "$out" "topk-f of peak, full-f of peak, topk-fb of peak"
echo "0.00001 0.5" >"$scratch/speed"
sed -i 's/,avx512,/,avx2,/' "$recorded"
runs 77 regress

# A row is measured once for each build, printed with its goal, and drawn.
attention() { python3 -B bench/peers/attention --keyhole "$fake" --results "$results" --rows threads-fb-8k,cross-f-1k "$@"; }
[ "$(nproc)" -ge 2 ] || finish # a row of theirs needs two
runs 0 attention --resume
has "$out" "1.85/1.85  yes"
runs 0 attention --resume
has "$out" "0 rows: about 0 s; 2 were measured with this build"
runs 0 attention --list
has "$out" "cross-f-1k"
runs 2 attention --rows nothing
has "$err" "no row begins with 'nothing'"
runs 0 python3 -B bench/peers/curves "$(find "$results" -name attention.csv)"
printf '%s' "$out" >"$scratch/curves.json"
runs 0 "$real" bench report "$scratch/curves.json" -q -o "$scratch/page.html"
python '
(one, two, ours, full) = sorted(json.load(open(sys.argv[1]))["results"], key=lambda r: (r["L"] == 1024, r["threads"], r["attn"] == "full"))
assert (one["threads"], two["threads"], ours["attn"], full["attn"]) == (1, 2, "topk:k=128", "full"), (one, two, ours, full)
assert one["seconds_min"] == 2 * two["seconds_min"] and one["L"] == 8192 and two["causal"] is True
' "$scratch/curves.json"

for name in attention ff; do
    runs 0 python3 -B "bench/peers/$name" --list --isa avx2 --keyhole "$fake" --results "$results"
    lacks "$out" "ONNX"
done
has "$out" "ff-fb-64k"
runs 0 bash bench/peers/table --list --keyhole "$fake"
has "$out" "topk-fb-16k"
has "$out" "== avx2 =="
runs 2 bash bench/peers/table --lits --keyhole "$fake"
has "$err" "unknown option '--lits'"
finish

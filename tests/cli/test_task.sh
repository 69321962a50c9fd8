# keyhole task: the list, examples as text, JSON and JSON lines, statistics, refusals.
. tests/cli/lib.sh

runs 0 "$keyhole" task
has "$out" "listops:min=16,max=128,depth=5,args=5"
has "$out" "mqar:L=64"
runs 0 "$keyhole" task --json
python 'names = [t["name"] for t in json.loads(sys.argv[1])["tasks"]]; assert {"listops", "mqar", "copy", "induction"} <= set(names)' "$out"

# The same examples every time, in every form, and from any first one.
runs 0 "$keyhole" task mqar --count 4 --json
python '
d = json.loads(sys.argv[1])
assert d["task"]["setting"] == "mqar:L=64,pairs=4,vocab=512,power=0.01,random=0"
assert d["task"]["split"] == "train" and d["task"]["seed"] == 1 and d["task"]["vocabulary"] == 512
assert len(d["examples"]) == 4
for e in d["examples"]:
    t, y = e["tokens"], e["targets"]
    assert len(t) == len(y) == 64 and sum(v >= 0 for v in y) == 4
    pairs = dict(zip(t[0:8:2], t[1:8:2]))
    assert all(v < 0 or pairs[t[i]] == v for i, v in enumerate(y))
    assert e["text"] == " ".join(map(str, t)) and "label" not in e
' "$out"
all=$out
check "JSON lines are written" "$keyhole" task mqar --count 4 --jsonl "$scratch/a.jsonl"
python '
lines = [json.loads(l) for l in open(sys.argv[2])]
assert lines == json.loads(sys.argv[1])["examples"]' "$all" "$scratch/a.jsonl"
runs 0 "$keyhole" task mqar --first 2 --count 2 --jsonl -
check "--first continues" test "$out" = "$(tail -2 "$scratch/a.jsonl")"
runs 0 "$keyhole" task mqar --count 2 --split test --jsonl -
check "splits differ" test "$out" != "$(head -2 "$scratch/a.jsonl")"
runs 0 "$keyhole" task mqar --count 2 --seed 2 --jsonl -
check "seeds differ" test "$out" != "$(head -2 "$scratch/a.jsonl")"

runs 0 "$keyhole" task listops --count 20 --split valid --jsonl -
python '
def value(words):
    w = words.pop(0)
    if not w.startswith("["): return int(w)
    args = []
    while words[0] != "]": args.append(value(words))
    words.pop(0)
    s = sorted(args)
    return {"[MIN": s[0], "[MAX": s[-1], "[MED": (s[(len(s) - 1) // 2] + s[len(s) // 2]) // 2, "[SM": sum(s) % 10}[w]
lines = [json.loads(l) for l in sys.argv[1].splitlines()]
assert len(lines) == 20
for e in lines:
    words = e["text"].replace("(", "").replace(")", "").split()
    assert len(words) == len(e["tokens"]) and value(words) == e["label"] and "targets" not in e
' "$out"

runs 0 "$keyhole" task copy:length=3,vocab=5 --count 1
has "$out" "0: 6 tokens"
has "$out" " | "
has "$out" "answers by row: 3: "
runs 0 "$keyhole" task listops --count 1
has "$out" ", label "
has "$out" "( ( "

runs 0 "$keyhole" task listops --stats --count 500
has "$out" "the root operation on its direct digits"
has "$out" "drafts that are allowed"
has "$out" "label 9"
runs 0 "$keyhole" task mqar --stats --count 500 --json
python '
d = json.loads(sys.argv[1])
assert d["stats"]["examples"] == 500 and d["stats"]["answers"] == 4 and d["stats"]["label_shares"] == []
assert abs(d["baselines"]["the value of one pair of the list"] - 0.25) < 0.05' "$out"

# Pictures and pairs of texts.
runs 0 "$keyhole" task pathfinder --count 1
has "$out" "0: 1024 tokens, label "
has "$out" "@@"
check "a picture is at most 64 wide" test "$(echo "$out" | awk 'length($0) > 64' | wc -l)" = 0
for name in a b; do seq -s " ${name}${name} " 1 2000 >"$scratch/$name.txt"; done
runs 0 "$keyhole" task "bytes:length=50,files=$scratch/a.txt+$scratch/b.txt" --count 9 --jsonl -
python '
import os
files = [open(os.path.join(sys.argv[2], n), "rb").read() for n in ("a.txt", "b.txt")]
for line in sys.argv[1].splitlines():
    e = json.loads(line)
    assert e["second"] == 50 and len(e["tokens"]) == 100
    a, b = bytes(t - 1 for t in e["tokens"][:50]), bytes(t - 1 for t in e["tokens"][50:])
    assert e["text"] == (a + b"\n-----\n" + b).decode()
    assert e["label"] == any(a in f and b in f for f in files)
' "$out" "$scratch"

refused 2 "no task is called 'mqra' (listops, mqar" task mqra
refused 2 "mqar has no parameter 'K'" task mqar:K=4
refused 2 "bytes needs files=" task bytes
refused 1 "/nowhere/a" task bytes:files=/nowhere/a
refused 2 "size must be 32, 64, 128 or 256" task pathfinder:size=48
refused 2 "one argument too many" task mqar copy
refused 2 "--split: 'dev' is not one of train, valid, test" task mqar --split dev
refused 2 "--jsonl: cannot be combined" task mqar --stats --jsonl -
refused 1 "/nowhere/a" task mqar --jsonl /nowhere/a
finish

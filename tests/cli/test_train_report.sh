# keyhole train report, and the page that a run leaves: columns of its metrics, long runs thinned, broken
# ones refused in one sentence.
. tests/cli/lib.sh

make_run() { # make_run <name> <configuration> : metrics from standard input
    mkdir -p "$scratch/$1"
    printf '%s\n' "$2" >"$scratch/$1/config.json"
    cat >"$scratch/$1/metrics.jsonl"
}
page_of() { # what stands in a page, as JSON
    python3 -c 'import re, sys
text = open(sys.argv[1], encoding="utf-8").read()
print(re.search(r"id=\"data\">(.*?)</script>", text, re.S).group(1))' "$1"
}

# Two processes (seconds fall), an evaluation at the end, a line that is being written, a stranger's line.
make_run a '{"steps": 40, "attn": "full", "data": ["a </script><!-- b.txt"]}' <<'END'
{"step":0,"eval_loss":6.5,"eval_accuracy":0.0,"eval_rows":10}
{"step":10,"epoch":0,"loss":5.0,"accuracy":0.1,"lr":0.001,"norm":2.0,"tokens_per_second":100,"seconds":4,"peak_bytes":1000}
{"step":20,"epoch":0,"loss":4.0,"accuracy":0.2,"lr":0.002,"norm":1.5,"tokens_per_second":110,"seconds":8,"peak_bytes":2000}
{"note":"not ours"}
{"step":30,"epoch":1,"loss":3.0,"accuracy":null,"lr":0.001,"norm":1.0,"tokens_per_second":120,"seconds":3,"peak_bytes":1500}
{"step":30,"eval_loss":3.5,"eval_accuracy":0.25,"eval_rows":10}
END
printf '{"step":40,"loss":2' >>"$scratch/a/metrics.jsonl"
make_run b '{"steps": 10}' <<'END'
{"step":10,"epoch":0,"loss":5.5,"accuracy":0.1,"lr":0.001,"norm":2.5,"tokens_per_second":100,"seconds":4,"peak_bytes":1000}
END

runs 0 "$keyhole" train report "$scratch/a/" "$scratch/b" -o "$scratch/page.html"
has "$err" "wrote $scratch/page.html"
check "nothing on standard output" test -z "$out"
page_of "$scratch/page.html" >"$scratch/data"
python '
text = open(sys.argv[1], encoding="utf-8").read()
assert "<" not in text and "\\u003c/script>" in text, text
got = json.loads(text)
assert got["command"].startswith("keyhole train report ") and got["version"] and got["commit"], got
a, b = got["runs"]
assert a["folder"].endswith("/a/") and a["config"]["attn"] == "full", a
train = a["train"]
assert (train["lines"], train["each"]) == (3, 1), train
assert train["step"] == [10, 20, 30] and train["loss"] == [5, 4, 3], train
assert train["seconds"] == [4, 8, 11], "processes add up: %s" % train["seconds"]
assert train["tokens"] == [400, 880, 1240], train["tokens"]
assert train["accuracy"] == [0.1, 0.2, None] and train["peak_bytes"] == [1000, 2000, 1500], train
assert "loss_low" not in train, train
assert a["eval"]["step"] == [0, 30] and a["eval"]["eval_loss"] == [6.5, 3.5], a["eval"]
assert a["last"]["step"] == 30 and a["last_eval"]["eval_loss"] == a["best"]["eval_loss"] == 3.5, a
assert b["eval"]["lines"] == 0 and "best" not in b, b
' "$scratch/data"
python '
text = open(sys.argv[1], encoding="utf-8").read()
assert re.search(r"Content-Security-Policy\" content=\"default-src \x27none\x27", text)
assert not re.search(r"<(link|script|img|iframe)[^>]+(src|href)=\"(?!data:,)", re.sub(r"<!--.*?-->", "", text, flags=re.S))
assert not re.search(r"\bimport\s*\(|\bfetch\s*\(|XMLHttpRequest|sendBeacon|EventSource", text)
' "$scratch/page.html"

# A long run: 5,001 lines become 1,667 points of three, with their mean and their range.
mkdir "$scratch/long"
echo '{}' >"$scratch/long/config.json"
python '
with open(sys.argv[1], "w") as f:
    for i in range(1, 5002):
        f.write(json.dumps({"step": i, "loss": i % 3, "norm": 1, "accuracy": 0.5, "lr": i, "tokens_per_second": 7, "seconds": i, "peak_bytes": 1}) + "\n")
' "$scratch/long/metrics.jsonl"
runs 0 "$keyhole" train report "$scratch/long" -q -o -
check "--quiet is quiet: $err" test -z "$err"
page_of "$scratch/out" >"$scratch/data"
python '
train = json.load(open(sys.argv[1]))["runs"][0]["train"]
assert (train["lines"], train["each"]) == (5001, 3), (train["lines"], train["each"])
assert train["step"] == list(range(3, 5002, 3)), train["step"][:5]
assert set(train["loss"]) == {1} and set(train["loss_low"]) == {0} and set(train["loss_high"]) == {2}
assert train["lr"] == train["step"] == train["seconds"] and train["tokens"][-1] == 7 * 5001
' "$scratch/data"

# What is no run is one sentence, and leaves the page that was there.
cp "$scratch/page.html" "$scratch/before"
leaves() { # leaves <exit> <sentence> <runs...>
    local want=$1 sentence=$2
    shift 2
    refused "$want" "$sentence" train report "$@" -o "$scratch/page.html"
    check "the old page stands" cmp -s "$scratch/page.html" "$scratch/before"
}
mkdir "$scratch/empty"
leaves 1 "nowhere: No such file" "$scratch/a" "$scratch/nowhere"
leaves 1 "empty: no run of keyhole train or tune: metrics.jsonl is missing" "$scratch/empty"
make_run bad '{}' </dev/null
leaves 1 "bad/metrics.jsonl: nothing was logged yet" "$scratch/bad"
printf '{"step":1,"loss":2' >"$scratch/bad/metrics.jsonl"
leaves 1 "bad/metrics.jsonl: nothing was logged yet" "$scratch/bad"
printf '{"step":1,"loss":2}\n{"step":\n' >"$scratch/bad/metrics.jsonl"
leaves 1 "bad/metrics.jsonl: line 2: no JSON" "$scratch/a" "$scratch/bad"
printf '{"loss":2}\n' >"$scratch/bad/metrics.jsonl"
leaves 1 'bad/metrics.jsonl: line 1: "step" is no number' "$scratch/bad"
printf '[1]\n' >"$scratch/bad/metrics.jsonl"
leaves 1 'bad/metrics.jsonl: line 1: "step" is no number' "$scratch/bad"
printf '{"step":5,"loss":2}\n{"step":4,"loss":2}\n' >"$scratch/bad/metrics.jsonl"
leaves 1 "bad/metrics.jsonl: line 2: step 4 after step 5" "$scratch/bad"
printf '{"step":5,"loss":2}\n' >"$scratch/bad/metrics.jsonl"
printf '{"steps": 5' >"$scratch/bad/config.json"
leaves 1 "bad/config.json: line 1: no JSON" "$scratch/bad"
printf '[]' >"$scratch/bad/config.json"
leaves 1 "bad/config.json: a JSON object of options is expected" "$scratch/bad"
rm "$scratch/bad/config.json"
leaves 1 "bad/config.json" "$scratch/bad"
leaves 1 "metrics.jsonl" "$scratch/a/metrics.jsonl"
leaves 2 "no run was named"
refused 2 "-o FILE.html names the page" train report "$scratch/a"
refused 1 "no-folder" train report "$scratch/a" -o "$scratch/no-folder/page.html"

# A run leaves its page: in its folder, or where --report says; and when it is stopped.
train=(train --arch gpt2:layers=1,width=16,heads=1 --task mqar:L=16,pairs=2 -b 2 -t 1 --log-every 1)
runs 0 "$keyhole" "${train[@]}" -n 3 --eval-every 2 --eval-batches 1 -o "$scratch/run"
has "$err" "wrote $scratch/run/report.html"
page_of "$scratch/run/report.html" >"$scratch/data"
python '
(run,) = json.load(open(sys.argv[1]))["runs"]
assert run["train"]["step"] == [1, 2, 3] and run["eval"]["step"] == [0, 2, 3], run
assert run["config"]["steps"] == 3 and run["config"]["task"] == "mqar:L=16,pairs=2", run["config"]
' "$scratch/data"
runs 0 "$keyhole" "${train[@]}" -n 1 -q -o "$scratch/other" --report "$scratch/elsewhere.html"
check "--report names the page" test -s "$scratch/elsewhere.html"
check "and it is the only one" test ! -e "$scratch/other/report.html"
runs 1 "$keyhole" "${train[@]}" -n 1 -q -o "$scratch/third" --report "$scratch/no-folder/page.html"
has "$err" "no-folder"
check "which is found out before the work" test ! -e "$scratch/third/metrics.jsonl"
python '
import os, signal, subprocess, time
keyhole, folder, words = sys.argv[1], sys.argv[2], sys.argv[3:]
run = subprocess.Popen([keyhole, *words, "-n", "1000000", "-q", "-o", folder])
metrics = os.path.join(folder, "metrics.jsonl")
end = time.time() + 120
while time.time() < end and not (os.path.exists(metrics) and os.path.getsize(metrics)):
    time.sleep(0.02)
# It goes on: what it has so far can be drawn.
subprocess.run([keyhole, "train", "report", folder, "-q", "-o", folder + ".html"], check=True)
run.send_signal(signal.SIGINT)
assert run.wait(120) == 130, run.returncode
text = open(os.path.join(folder, "report.html"), encoding="utf-8").read()
assert json.loads(re.search(r"id=\"data\">(.*?)</script>", text, re.S).group(1))["runs"][0]["train"]["lines"] > 0
' "$keyhole" "$scratch/stopped" "${train[@]}"
finish

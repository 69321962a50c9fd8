# keyhole tune on a real model: from Q4_1, three steps on a novel, to BF16 that other verbs open.
# label: long
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
need_model smollm2
text=$PWD/examples/persuasion.txt
cd "$scratch" || exit 1

head -c 200000 "$text" >novel.txt
head -c 6000 "$text" >held.txt
runs 0 "$keyhole" tune -m "$model" --data novel.txt --valid held.txt --eval-every 3 -L 256 -n 3 --lr 1e-4 --log-every 1 \
    -o run --json
python 'd = json.load(open("out")); lines = [json.loads(x) for x in open("run/metrics.jsonl")]
evals = [x["eval_loss"] for x in lines if "eval_loss" in x]
assert d["steps"] == 3 and d["parameters"] == 134515008, d
assert len(evals) == 2 and 2.5 < evals[1] < evals[0] < 4, evals
peak = max(x.get("peak_bytes", 0) for x in lines)
# Masters, gradients and two moments are 2.15 GB.
assert 2.1e9 < peak < 3.2e9, peak
print(evals, peak)'
check "BF16" test "$(stat -c %s run/model.gguf)" -lt 290000000
runs 0 "$keyhole" run -m run/model.gguf -p "Who wrote Persuasion?" -n 4 -q
runs 0 "$keyhole" ppl -m run/model.gguf -f held.txt -c 256 --json -q
python 'd = json.load(open("out")); evals = [json.loads(x)["eval_loss"] for x in open("run/metrics.jsonl") if "eval_loss" in x]
assert abs(d["results"][0]["nll"] - evals[1]) < 0.05, (d, evals)'

# A conversation, top-k attention, a part of the tensors: no moments and no gradients for the others.
echo '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Good evening."}]}' >chat.jsonl
runs 0 "$keyhole" tune -m "$model" --data chat.jsonl --attn topk:k=8 -L 64 -n 2 --train "blk.2?.*" --log-every 1 -o part --save folder/ --json
python 'lines = [json.loads(x) for x in open("part/metrics.jsonl")]
assert lines[0]["peak_bytes"] < 1.6e9 and lines[0]["rows"] < 12, lines
assert lines[1]["loss"] < lines[0]["loss"], lines'
runs 0 "$keyhole" run -m folder -p "Hi" -n 4 -q
finish

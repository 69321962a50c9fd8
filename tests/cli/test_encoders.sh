# embed, fill, qa, eval, and run and ppl of models with an encoder, on tiny folders of tests/golden/families.
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
families=tests/golden/families
export XDG_CACHE_HOME=$scratch/cache
printf 'the cat sat on a mat\na dog ran\r\n\nthe cat sat on a mat\n' >"$scratch/lines"
printf 'the cat sat. on a mat' >"$scratch/text"

# Vectors of length 1, one a text, whatever it shares a pass with; a file's lines like words.
runs 0 "$keyhole" embed "$families/bert-embed" "the cat sat on a mat" "a dog ran" "the cat sat on a mat"
cp "$scratch/out" "$scratch/words"
runs 0 "$keyhole" embed "$families/bert-embed" -f "$scratch/lines" -t 1
check "lines are words" cmp -s "$scratch/out" "$scratch/words"
runs 0 "$keyhole" embed "$families/bert-embed" -f "$scratch/lines" --json
python '
x = json.load(open(sys.argv[1]))
rows = [list(map(float, line.split())) for line in open(sys.argv[2])]
assert x["width"] == len(rows[0]) == len(x["embeddings"][0]) and x["normalised"] and x["pooling"] == "model", x
assert len(rows) == 3 and rows[0] == rows[2] != rows[1] and len(x["tokens"]) == 3, x
assert all(abs(sum(v * v for v in row) - 1) < 1e-5 for row in rows)
assert max(abs(a - b) for r, e in zip(rows, x["embeddings"]) for a, b in zip(r, e)) < 1e-6
' "$scratch/out" "$scratch/words"
runs 0 "$keyhole" embed "$families/bert-embed" "a dog ran" --pooling cls --no-normalize
runs 0 "$keyhole" embed "$families/bert-embed" "a dog ran" --attn topk:k=2
runs 0 "$keyhole" embed "$families/t5-encoder" "a dog ran"
refused 2 "needs the causal mask" embed "$families/bert-embed" "a dog ran" --attn window:recent=3
refused 2 "needs the causal mask" run "$families/t5" -p "a dog ran" --attn "cross=topk:k=4,recent=2"
runs 0 "$keyhole" run "$families/t5" -p "a dog ran" --attn "decoder=topk:k=4,recent=2" -n 3 -q
long=$(printf 'mat %.0s' $(seq 600))
refused 1 "tokens, at most" embed "$families/bert-embed" "$long"
runs 0 "$keyhole" embed "$families/bert-embed" "$long" --truncate
has "$err" "1 of 1 texts were cut"
refused 2 "there is no text" embed "$families/bert-embed"
refused 1 "is a decoder" embed "$families/llama" "x"

# Masks: named or not, one or two; probabilities that fall.
runs 0 "$keyhole" fill "$families/bert" "the ___ sat on a [MASK]" --json -k 4
python '
m = json.load(open(sys.argv[1]))["masks"]
assert len(m) == 2 and all(len(x["choices"]) == 4 for x in m), m
for x in m:
    p = [c["probability"] for c in x["choices"]]
    assert p == sorted(p, reverse=True) and 0 < sum(p) <= 1, x
' "$scratch/out"
runs 0 "$keyhole" fill "$families/roberta" "the ___ sat"
check "five lines" test "$(wc -l <"$scratch/out")" = 5
refused 2 "the text has no mask" fill "$families/bert" "the cat"
refused 1 "no head that predicts masked tokens" fill "$families/bert-embed" "the ___"

# Answers are parts of the text; windows of a long one are read to its end.
runs 0 "$keyhole" qa "$families/bert-qa" -f "$scratch/text" "where did it sit" -k 5 --json
python '
x = json.load(open(sys.argv[1]))
text = open(sys.argv[2]).read()
assert x["answer"] == x["answers"][0]["text"] and len(x["answers"]) == 5, x
assert all(text[a["start"]:a["end"]] == a["text"] for a in x["answers"]), x
assert abs(sum(a["probability"] for a in x["answers"]) - 1) < 1e-9, x
s = [a["score"] for a in x["answers"]]
assert s == sorted(s, reverse=True), s
' "$scratch/out" "$scratch/text"
echo "$long" >"$scratch/long"
runs 0 "$keyhole" qa "$families/bert-qa" -f "$scratch/long" "where"
refused 2 "a question" qa "$families/bert-qa" "where"
refused 1 "no head that finds answers" qa "$families/bert-embed" -f "$scratch/text" "where"
runs 0 "$keyhole" qa "$families/t5" -f "$scratch/text" "where" -n 8 --json
python 'assert list(json.load(open(sys.argv[1]))) == ["answer"]' "$scratch/out"

# A source is answered; beams are deterministic; what cannot be done is said.
runs 0 "$keyhole" run "$families/t5" -p "a dog ran" --beams 3 -n 6 --json -q
cp "$scratch/out" "$scratch/beams"
runs 0 "$keyhole" run "$families/t5" -p "a dog ran" --beams 3 -n 6 --json -q -t 1
python '
a, b = (json.load(open(p)) for p in sys.argv[1:])
assert a["tokens"] == b["tokens"] and len(a["tokens"]) <= 6 and a["finish"] in ("end", "length"), a
' "$scratch/beams" "$scratch/out"
runs 0 "$keyhole" run "$families/t5-gated" -p "a dog ran" --temp 0 -n 6 --attn "encoder=topk:k=3;cross=topk:k=2" -q
runs 0 "$keyhole" run "$families/llama" --raw -p "hello" --beams 4 -n 6 -q
refused 1 "cannot be kept in a file" run "$families/t5" -p "a dog" --prompt-cache "$scratch/cache.bin"
refused 1 "is an encoder" run "$families/bert" --raw -p "a dog"
refused 2 "one stack of layers" run "$families/llama" --raw -p "a dog" --attn "encoder=full"

# Examples: both kinds, the names that sets use, predictions line by line, refusals with the line.
cat >"$scratch/set.jsonl" <<'JSON'
{"question": "who sat", "context": "the cat sat", "answers": ["cat"]}
{"question": "who ran", "passage": "a dog ran", "answers": {"text": ["dog", "a dog"], "answer_start": [2, 0]}}

{"prompt": "the cat", "choices": ["sat", "ran"], "answer": 0}
{"query": "a dog", "choices": {"text": ["sat", "ran"], "label": ["A", "B"]}, "answerKey": "B"}
{"ctx": "on a", "endings": ["mat", "dog"], "label": "0"}
JSON
for model in llama t5; do
    runs 0 "$keyhole" eval "$families/$model" -f "$scratch/set.jsonl" --attn full --attn topk:k=3 --ff dense --ff topk:k=5 \
        -n 4 --predictions "$scratch/predictions" --json -q
    python '
r = json.load(open(sys.argv[1]))["results"]
assert [(x["attn"], x["ff"]) for x in r] == [(a, f) for a in ("full", "topk:k=3") for f in ("dense", "topk:k=5")], r
assert all(x["questions"] == 2 and x["choices"] == 3 and 0 <= x["accuracy"] <= 1 for x in r), r
lines = [json.loads(line) for line in open(sys.argv[2])]
assert len(lines) == 20 and [x["example"] for x in lines[:5]] == [1, 2, 3, 4, 5], lines
mine = [x for x in lines if (x["attn"], x["ff"]) == ("full", "dense")]
assert abs(sum(x["right"] for x in mine[2:]) / 3 - r[0]["accuracy"]) < 1e-12, r
assert abs(sum(x["f1"] for x in mine[:2]) / 2 - r[0]["f1"]) < 1e-12, r
' "$scratch/out" "$scratch/predictions"
done
head -2 "$scratch/set.jsonl" >"$scratch/questions.jsonl"
runs 0 "$keyhole" eval "$families/bert-qa" -f "$scratch/questions.jsonl" -q
has "$out" "exact"
refused 1 "no likelihood of a choice" eval "$families/bert-qa" -f "$scratch/set.jsonl" -q
echo '{"question": "x"}' >>"$scratch/questions.jsonl"
refused 1 "line 3" eval "$families/llama" -f "$scratch/questions.jsonl" -q
echo '{"question": "x", "choices": ["a", "b"], "answer": 2}' >"$scratch/wrong.jsonl"
refused 1 "one of the 2 choices" eval "$families/llama" -f "$scratch/wrong.jsonl" -q
echo 'not json' >"$scratch/wrong.jsonl"
refused 1 "line 1" eval "$families/llama" -f "$scratch/wrong.jsonl" -q
refused 2 "no examples were named" eval "$families/llama"

# Pseudo-perplexity; a folder shows what it is.
runs 0 "$keyhole" ppl "$families/bert" -f "$scratch/text" --attn full --attn topk:k=4 --json -q
python '
r = json.load(open(sys.argv[1]))["results"]
assert r[0]["kl"] == 0 and r[1]["kl"] > 1e-6 and r[0]["tokens"] == r[1]["tokens"] > 3 and r[0]["keys_kept"] is None, r
' "$scratch/out"
runs 0 "$keyhole" show "$families/t5" --json
python 'x = json.load(open(sys.argv[1])); assert x["kind"] == "encoder and decoder" and x["encoder_layers"] == 2, x' "$scratch/out"
cp -r "$families/t5" "$scratch/renamed"
cp "$scratch/out" "$scratch/here"
runs 0 "$keyhole" show "$scratch/renamed" --json
python 'a, b = (json.load(open(p))["identity"] for p in sys.argv[1:]); assert a == b, (a, b)' "$scratch/here" "$scratch/out"
runs 0 "$keyhole" show "$families/bert"
has "$out" "bert (encoder)"
finish

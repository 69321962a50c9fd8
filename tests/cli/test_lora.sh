# --lora: adapters run, are listed, merged and written in the other form; wrong ones are refused.
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
golden=$PWD/tests/golden
cd "$scratch" || exit 1
base=$golden/families/llama adapter=$golden/lora/llama
answer() {
    "$keyhole" run "$@" --raw -p "A keyhole" -n 16 --temp 0 --ignore-eos --compute f32 -q
}

plain=$(answer -m "$base")
adapted=$(answer -m "$base" --lora "$adapter")
check "the adapter changes the answer" test -n "$adapted" -a "$plain" != "$adapted"
check "at strength 0 it does not" test "$(answer -m "$base" --lora "$adapter:0")" = "$plain"
check "opposite strengths cancel" test "$(answer -m "$base" --lora "$adapter:0.5,$adapter:-0.5")" = "$plain"
check "two halves are a whole" \
    test "$(answer -m "$base" --lora "$adapter:0.5" --lora-scaled "$adapter:0.5")" = "$adapted"
check "the path of the weights" test "$(answer -m "$base" --lora "$adapter/adapter_model.safetensors")" = "$adapted"

# the other form, and merged
runs 0 "$keyhole" convert "$base" --lora "$adapter" --only-lora -o adapter.gguf --json -q
python 'd=json.load(open(sys.argv[1]))
assert d["type"] == "F32" and d["tensors"] == 46 and d["file"] == "adapter.gguf", d' "$scratch/out"
runs 0 "$keyhole" convert "$base" base.gguf --type F32 -q
check "as a GGUF file" test "$(answer -m base.gguf --lora adapter.gguf)" = "$adapted"
runs 0 "$keyhole" convert base.gguf --lora adapter.gguf:2 --only-lora -o "half scale:/" -q
check "a colon in a name, and the strength in alpha" \
    test "$(answer -m "$base" --lora "half scale:/:0.5")" = "$adapted"
runs 0 "$keyhole" convert "$base" --lora adapter.gguf --type F32 -o merged.gguf
has "$err" "adapters were merged into 23 tensors"
check "merged" test "$(answer -m merged.gguf)" = "$adapted"
runs 0 "$keyhole" convert base.gguf --lora "$adapter" --type F32 -o merged/ -q
check "merged into a folder" test "$(answer -m merged)" = "$adapted"

# every verb that opens a model
runs 0 "$keyhole" show "$base" --lora "$adapter" --lora adapter.gguf:0.5
has "$out" "adapter         $adapter, PEFT, strength 1: 23 tensors, rank 2 to 4, alpha 6"
has "$out" "adapter         adapter.gguf, GGUF, strength 0.5: 23 tensors"
has "$out" "adapters"
runs 0 "$keyhole" show "$base" --lora "$adapter" --json
python 'd=json.load(open(sys.argv[1]))
a,=d["adapters"]
assert a["format"]=="PEFT" and a["tensors"]==23 and a["least_rank"]==2 and a["most_rank"]==4 and a["alpha"]==6, a
assert d["memory"]["adapters"]==4*a["parameters"]>0, d["memory"]' "$scratch/out"
for words in "ppl -c 16" "bench -p 8 -n 4 -r 1"; do
    [ "${words%% *}" = ppl ] && set -- -f "$golden/../../README.md" --chunks 2 || set --
    # shellcheck disable=SC2086
    runs 0 "$keyhole" $words "$@" -m "$base" --lora "$adapter" -q
done
runs 0 "$keyhole" tokenize "$base" --lora "$adapter" hello -q
runs 0 "$keyhole" run "$base" hello --raw -n 1 --lora "$adapter" -v
has "$err" "adapter $adapter, PEFT, strength 1, 23 tensors"

# a saved prompt belongs to the adapter that read it
answer -m "$base" --prompt-cache prompt.bin >/dev/null
runs 1 answer -m "$base" --prompt-cache prompt.bin --lora "$adapter"
has "$err" "prompt.bin"

# trained beside a quantised model: the file stays, the loss falls, and a run goes on
runs 0 "$keyhole" convert "$base" q8.gguf --type Q8_0 -q
cp q8.gguf before.gguf
tune=("$keyhole" tune -m q8.gguf --data "$golden/../../README.md" -L 24 --lr 0.03 --schedule constant --log-every 1 -q)
runs 0 "${tune[@]}" --lora-rank 3 --lora-targets 'blk.*' -n 12 -o run
check "the model's file is what it was" cmp q8.gguf before.gguf
check "no model is written" test ! -e run/model.gguf
python 'steps=[json.loads(l) for l in open("run/metrics.jsonl")]
assert len(steps)==12 and steps[-1]["loss"]<steps[0]["loss"]-0.05, steps'
runs 0 "$keyhole" show q8.gguf --lora run/adapter.gguf --json
python 'a,=json.load(open(sys.argv[1]))["adapters"]
assert (a["tensors"],a["least_rank"],a["alpha"])==(21,3,6), a' "$scratch/out"
check "the adapter is not nothing" test "$(answer -m q8.gguf --lora run/adapter.gguf)" != "$(answer -m q8.gguf)"
runs 0 "${tune[@]}" --lora-rank 3 --lora-targets 'blk.*' -n 12 -o parts --save parts/first.gguf --save-every 5 --stop-at 0
runs 0 "${tune[@]}" --lora-rank 3 --lora-targets 'blk.*' -n 16 -o parts --resume
runs 0 "${tune[@]}" --lora-rank 3 --lora-targets 'blk.*' -n 16 -o whole
check "a run that went on has the same adapter" cmp parts/adapter.gguf whole/adapter.gguf
runs 0 "${tune[@]}" --lora run/adapter.gguf -n 2 -o more --save more/peft/
runs 0 "$keyhole" show q8.gguf --lora more/peft --json
python 'a,=json.load(open(sys.argv[1]))["adapters"]
assert (a["format"],a["tensors"],a["least_rank"],a["alpha"])==("PEFT",21,3,6), a' "$scratch/out"
runs 0 "${tune[@]}" --lora-rank 2 --lora-alpha 5 --lora-targets '*attn_[qv].weight' -n 1 -o few
runs 0 "$keyhole" show q8.gguf --lora few/adapter.gguf
has "$out" "6 tensors, rank 2, alpha 5"
refused 2 "no matrix of the model's layers" tune -m q8.gguf --data "$golden/../../README.md" --lora-rank 2 --lora-targets nothing -o no
refused 2 "is trained as it is" tune -m q8.gguf --data "$golden/../../README.md" --lora-rank 2 --lora run/adapter.gguf -o no
refused 2 "one adapter is trained on" tune -m q8.gguf --data "$golden/../../README.md" --lora run/adapter.gguf:2 -o no

refused 1 "none: " run -m "$base" --lora none -p hi
refused 1 "made for another model" run -m "$golden/families/qwen2" --lora adapter.gguf -p hi
refused 1 "made for another model" run -m "$golden/families/llama-bias" --lora "$adapter" -p hi
refused 2 "a finite strength is expected" run -m "$base" --lora "$adapter:nan" -p hi
refused 2 "a name is missing" run -m "$base" --lora ",$adapter" -p hi
refused 1 "the file is no adapter" run -m "$base" --lora base.gguf -p hi
refused 2 "name what to write" convert "$base" --lora "$adapter" --only-lora
refused 2 "one adapter is written at a time" convert "$base" --only-lora -o x.gguf
refused 1 "exists already" convert "$base" --lora "$adapter" --only-lora -o adapter.gguf
refused 1 "the file is an adapter, which is added to its model" run -m adapter.gguf -p hi
refused 1 "cannot be merged" convert "$golden/families/gemma3" --lora "$golden/lora/gemma3" -o x.gguf
finish

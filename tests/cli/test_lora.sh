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

# keyhole convert: types, mixes, names, refusals; the result runs, and says what the model said.
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
tiny=$PWD/tests/golden/tiny
cd "$scratch" || exit 1

types_of() {
    "$keyhole" show "$1" --json --tensors | python3 -c 'import json,sys
print(*sorted({t["type"] for t in json.load(sys.stdin)["tensors"]}))'
}

base=$tiny/gemma3-q8.gguf # its rows are multiples of 32, not of 256

# every type: written, opened, verified
for type in F32 F16 BF16 Q8_0 Q5_1 Q5_0 Q4_1 Q4_0 Q6_K Q5_K_M Q4_K_M Q4_K_S Q3_K_L Q2_K; do
    runs 0 "$keyhole" convert "$base" "$type.gguf" --type "$type" --json -q
    python 'd=json.load(open(sys.argv[1]))
assert d["file"] == sys.argv[2] + ".gguf" and d["type"] == sys.argv[2], d
assert d["tensors"] == sum(t["tensors"] for t in d["types"]) > 20, d
assert d["bytes_out"] == sum(t["bytes"] for t in d["types"]), d' "$scratch/out" "$type"
    runs 0 "$keyhole" verify "$type.gguf" -q
    runs 0 "$keyhole" show "$type.gguf" --metadata
    has "$out" "general.file_type"
    has "$out" "general.quantization_version"
done
check "F32 has one type" test "$(types_of F32.gguf)" = F32
check "F16 keeps vectors" test "$(types_of F16.gguf)" = "F16 F32"
check "Q4_K_M falls back" test "$(types_of Q4_K_M.gguf)" = "F32 Q5_0 Q8_0"
check "Q5_K_M falls back" test "$(types_of Q5_K_M.gguf)" = "F32 Q5_1 Q8_0"
check "a name in small letters" "$keyhole" convert "$base" small.gguf --type q8_0 -q
check "the same bytes" cmp small.gguf Q8_0.gguf
runs 0 "$keyhole" convert "$base" one.gguf --type Q4_0 -t 1 -q
check "the same bytes from one thread" cmp one.gguf Q4_0.gguf
runs 0 "$keyhole" convert F32.gguf again.gguf --type F32 -q
check "F32 again is the same" cmp again.gguf F32.gguf
runs 0 "$keyhole" convert Q8_0.gguf still.gguf --type Q8_0 -q
check "Q8_0 again is the same" cmp still.gguf Q8_0.gguf

# what is dense gives the same tokens
for name in gemma3-q8 llama qwen3-q4; do
    runs 0 "$keyhole" convert "$tiny/$name.gguf" dense.gguf --type F32 -f -q
    runs 0 "$keyhole" run "$tiny/$name.gguf" --raw -p "A keyhole" -n 12 --temp 0 --ignore-eos --compute f32 -q
    before=$out
    runs 0 "$keyhole" run dense.gguf --raw -p "A keyhole" -n 12 --temp 0 --ignore-eos --compute f32 -q
    check "$name generates the same" test "$out" = "$before"
done

# a folder, tokenizer and all
runs 0 "$keyhole" convert "$tiny/../families/qwen3/" --type F32 -q
check "named after the folder" test -f qwen3-F32.gguf
for words in "A keyhole" "42 wörds;  näm"; do
    runs 0 "$keyhole" tokenize "$tiny/../families/qwen3" "$words" --ids -q
    before=$out
    runs 0 "$keyhole" tokenize qwen3-F32.gguf "$words" --ids -q
    check "the folder's ids" test "$out" = "$before"
done
runs 0 "$keyhole" convert "$tiny/../families/qwen3" bare.gguf --type F32 --no-tokenizer -q
refused 1 "tokenizer.ggml.model is missing" tokenize bare.gguf hello

# a folder as the result
families=$tiny/../families
for name in qwen3 gpt2 gemma2 mixtral; do
    runs 0 "$keyhole" convert "$families/$name" "$name-back/" --type F32 --json -q
    python 'd=json.load(open(sys.argv[1]))
assert d["bytes_out"] == sum(t["bytes"] for t in d["types"]) and [t["type"] for t in d["types"]] == ["F32"], d' "$scratch/out"
    check "$name has its tokenizer" cmp "$families/$name/tokenizer.json" "$name-back/tokenizer.json"
    runs 0 "$keyhole" run "$families/$name" --raw -p "A keyhole" -n 12 --temp 0 --ignore-eos --compute f32 -q
    before=$out
    runs 0 "$keyhole" run "$name-back" --raw -p "A keyhole" -n 12 --temp 0 --ignore-eos --compute f32 -q
    check "$name generates the same" test "$out" = "$before"
done
runs 0 "$keyhole" convert "$families/qwen3" half/ --type F16 -q
check "F16 halves it" test "$(stat -c %s half/model.safetensors)" -lt "$(stat -c %s qwen3-back/model.safetensors)"
runs 0 "$keyhole" convert "$base" made/ -q
check "a GGUF file has a configuration" test -f made/config.json
check "and a tokenizer.json" test -f made/tokenizer.json
for words in "A keyhole" "42 wörds;  näm" "  two  blanks "; do
    runs 0 "$keyhole" tokenize "$base" "$words" --ids -q
    before=$out
    runs 0 "$keyhole" tokenize made "$words" --ids -q
    check "the file's ids" test "$out" = "$before"
done
runs 0 "$keyhole" convert "$base" bare/ --no-tokenizer -q
check "or none" test ! -e bare/tokenizer.json
refused 1 "replaced only on demand" convert "$base" made/ -q
runs 0 "$keyhole" convert "$base" made/ -f -q
refused 1 "holds F32, F16 or BF16, not Q8_0" convert "$base" other/ --type Q8_0 -q
check "nothing is left of it" test ! -e other

# names of the output, and what is in the way
runs 0 "$keyhole" convert "$base" --type Q8_0
has "$out" "gemma3-q8-Q8_0.gguf: "
has "$out" "bits a weight"
check "in this folder" test -f gemma3-q8-Q8_0.gguf
mv gemma3-q8-Q8_0.gguf llama-Q8_0.gguf
runs 0 "$keyhole" convert -m llama-Q8_0.gguf --type F16 -q
check "the type in the name is replaced" test -f llama-F16.gguf
refused 1 "llama-F16.gguf: exists already" convert -m llama-Q8_0.gguf --type F16
runs 0 "$keyhole" convert -m llama-Q8_0.gguf --type Q4_0 -o llama-F16.gguf -f
has "$err" "quantised before"
check "replaced" test "$(types_of llama-F16.gguf)" != "F16 F32"
runs 0 "$keyhole" convert "$tiny/llama.gguf" odd.gguf --type Q8_0
has "$err" "do not divide"
check "rows that 32 does not divide become F16" test "$(types_of odd.gguf)" = "F16 F32"
runs 0 "$keyhole" convert llama-F16.gguf --type Q4_1 -o llama-F16.gguf -f -q
check "over itself" "$keyhole" verify llama-F16.gguf -q
refused 1 "nothing.gguf: No such file" convert nothing.gguf --type Q8_0
refused 2 "--type: 'Q9' is not one of F32, F16, BF16, Q8_0" convert "$tiny/llama.gguf" --type Q9
refused 2 "no model was named" convert --type Q8_0
refused 1 "/nowhere/x.gguf: cannot be written" convert "$tiny/llama.gguf" /nowhere/x.gguf
echo "no model" >no.gguf
refused 1 "no.gguf: not a GGUF file" convert no.gguf --type Q8_0
check "nothing half done is left" test -z "$(find . -name '*.gguf.*')"

# An encoder's heads stay, are named, and can be left out.
runs 0 "$keyhole" convert "$tiny/../families/bert" "$scratch/heads.gguf" --type F32
has "$err" "5 tensors are an encoder's heads"
runs 0 "$keyhole" fill "$scratch/heads.gguf" "the ___"
runs 0 "$keyhole" convert "$tiny/../families/bert" "$scratch/plain.gguf" --type F32 --no-heads
lacks "$err" "heads"
refused 1 "no head that predicts masked tokens" fill "$scratch/plain.gguf" "the ___"
runs 0 "$keyhole" embed "$scratch/plain.gguf" "the cat"
cp "$scratch/out" "$scratch/plain"
runs 0 "$keyhole" embed "$scratch/heads.gguf" "the cat"
check "the same rows without heads" cmp -s "$scratch/out" "$scratch/plain"
finish

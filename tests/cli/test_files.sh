# keyhole tokenize, show and verify.
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
tiny=tests/golden/tiny

for name in llama gemma3; do
    model=$tiny/$name.gguf
    text='Grüße, "日本" 😀 done'
    runs 0 "$keyhole" tokenize "$model" "$text" --ids -q
    ids=$(echo "$out" | tr '\n' ' ')
    # shellcheck disable=SC2086
    runs 0 "$keyhole" tokenize "$model" --decode --no-special $ids
    check "$name: ids and back" test "$out" = "$text"
    runs 0 bash -c 'printf %s "$0" | "$@"' "$ids" "$keyhole" tokenize "$model" -d --no-special
    check "$name: ids from standard input" test "$out" = "$text"
    runs 0 "$keyhole" tokenize "$model" "$text" --json
    found=$(python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); print(*d["ids"], d["count"] == len(d["pieces"]))' "$scratch/out")
    check "$name: JSON says the same" test "$found" = "${ids}True"
done
runs 0 "$keyhole" tokenize "$tiny/llama.gguf" $'a\nb"'
has "$out" '"a"'
has "$out" '"\n"'
runs 2 "$keyhole" tokenize "$tiny/llama.gguf" -d 1 99999
has "$err" "'99999' is not a token id from 0 to"
runs 2 "$keyhole" tokenize "$tiny/llama.gguf"

runs 0 "$keyhole" show "$tiny/llama.gguf"
has "$out" "trained length  128 tokens"
has "$out" "memory"
has "$out" "--attn auto     full"
runs 0 "$keyhole" show "$tiny/llama.gguf" --metadata --tensors
has "$out" "general.architecture"
has "$out" "token_embd.weight"
runs 0 "$keyhole" show "$tiny/llama.gguf" --json
python3 - "$scratch/out" <<'END' || bad "show --json"
import json, sys
d = json.load(open(sys.argv[1]))
assert d["architecture"] == "llama" and d["context"] == 128 and d["memory"]["context"] == 128, d
assert len(d["tensors"]) == 20 and d["tensors"][0]["bytes"] > 0, d["tensors"]
assert any(m["key"] == "general.architecture" for m in d["metadata"])
END
cache() {
    "$keyhole" show "$tiny/llama.gguf" --json "$@" | python3 -c 'import json,sys; print(json.load(sys.stdin)["memory"]["cache"])'
}
check "a larger context needs a larger cache" test "$(cache -c 1024)" -gt "$(cache -c 128)"
check "f32 keys need a larger cache" test "$(cache -ctk f32)" -gt "$(cache)"

runs 0 "$keyhole" verify "$tiny/llama.gguf"
lacks "$out" FAILED
has "$err" " 0 failed"
runs 0 "$keyhole" verify "$tiny/gemma3-q8.gguf" --json -q
python3 - "$scratch/out" <<'END' || bad "verify --json"
import json, sys
d = json.load(open(sys.argv[1]))
assert d["passed"] is True and len(d["checks"]) >= 7, d
END
cp "$tiny/llama.gguf" "$scratch/cut.gguf"
truncate -s 200000 "$scratch/cut.gguf"
runs 1 "$keyhole" verify "$scratch/cut.gguf"
has "$err" "keyhole: "
finish

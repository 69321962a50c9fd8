# keyhole ask and chat, on a model that can talk.
# not under: thread
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
need_model smollm2
export XDG_CACHE_HOME=$scratch/cache

cat >"$scratch/doc.txt" <<'END'
The harbour of Lenn has three piers. The oldest pier was built by monks.
Boats come in before dawn and leave at noon. Nobody fishes on Sundays.
The mayor is called Ida. The lighthouse is white and red.
The baker opens at five, and the smell of bread lies over the whole harbour.
END
value() {
    printf '%s' "$out" | python3 -c "import json,sys; d=json.load(sys.stdin); print($1)" 2>&1
}
ask=("$keyhole" ask -m "$model" -f "$scratch/doc.txt" -n 24 -q)

runs 0 "${ask[@]}" "What is the mayor called?" --sources --json
has "$(value 'd["text"]')" Ida
check "nothing was known before" test "$(value 'd["cached_tokens"]')" = 0
has "$(value '[s["text"] for s in d["sources"]]')" "The mayor is called Ida."
python3 - "$scratch/out" "$scratch/doc.txt" <<'END' || bad "sources are passages of the document"
import json, sys
d, text = json.load(open(sys.argv[1])), open(sys.argv[2], "rb").read()
assert 1 <= len(d["sources"]) <= 3
for s in d["sources"]:
    assert text[s["start"]:s["end"]].decode() == s["text"], s
    assert 0 < s["weight"] <= 1 and 0 <= s["layer"] < 30 and 0 <= s["head"] < 9
assert d["sources"] == sorted(d["sources"], key=lambda s: -s["weight"])
END
check "the document as read lies beside it" test -s "$scratch/doc.txt.keyhole-cache"
before=$(stat -c %Y.%i "$scratch/doc.txt.keyhole-cache")

runs 0 "${ask[@]}" "Who built the oldest pier?" --json
check "the document was known" test "$(value 'd["cached_tokens"] > d["prompt_tokens"] - 20')" = True
check "and the file is not written again" test "$before" = "$(stat -c %Y.%i "$scratch/doc.txt.keyhole-cache")"
cached=$(value 'd["tokens"]')
runs 0 "${ask[@]}" "Who built the oldest pier?" --json --no-prompt-cache
check "with the same answer" test "$(value 'd["tokens"]')" = "$cached"
runs 0 "${ask[@]}" "Who built the oldest pier?" --sources
has "$out" "[1] "

# A changed document, and another setting, are noticed.
sed -i 's/Ida/Berta/' "$scratch/doc.txt"
runs 0 "${ask[@]}" "What is the mayor called?" --json
has "$(value 'd["text"]')" Berta
check "only the unchanged beginning was known" test "$(value '0 < d["cached_tokens"] < d["prompt_tokens"] - 40')" = True
runs 0 "${ask[@]}" "What is the mayor called?" --attn topk:k=32 --json
runs 2 "$keyhole" ask -m "$model" -f "$scratch/doc.txt" ""
runs 1 "$keyhole" ask -m "$model" -f /nowhere "why?"

# Where the folder cannot be written, the cache goes elsewhere.
if [ "$(id -u)" != 0 ]; then
    mkdir "$scratch/fixed" && cp "$scratch/doc.txt" "$scratch/fixed" && chmod 500 "$scratch/fixed"
    runs 0 "$keyhole" ask -m "$model" -f "$scratch/fixed/doc.txt" -n 1 -q "why?"
    check "a cache in XDG_CACHE_HOME" test -n "$(ls "$scratch/cache/keyhole/prompts")"
    chmod 700 "$scratch/fixed"
fi

# A conversation from standard input: each line a turn, the earlier ones are remembered.
chat=("$keyhole" chat -m "$model" -n 24 --temp 0)
printf 'My name is Ottilie.\n/nosuch\nWhat is\\\nmy name?\n/stats\n/quit\nnever\n' >"$scratch/talk"
runs 0 bash -c '"${@:1}" <"$0"' "$scratch/talk" "${chat[@]}"
with=$(echo "$out" | tail -n 1)
has "$err" "/nosuch: no such command"
has "$err" "more were known"
lacks "$out" "> "
printf 'What is\\\nmy name?\n' >"$scratch/talk"
runs 0 bash -c '"${@:1}" <"$0"' "$scratch/talk" "${chat[@]}"
check "an answer depends on the turns before it" test "$(echo "$out" | tail -n 1)" != "$with"
printf 'one\n' >"$scratch/talk"
runs 1 bash -c '"${@:1}" <"$0"' "$scratch/talk" "$keyhole" chat tests/golden/tiny/llama.gguf
has "$err" "--chat-template"
runs 0 bash -c '"${@:1}" <"$0"' /dev/null "${chat[@]}"
check "no input, no output" test -z "$out"
finish

# keyhole run on a tiny model: streams, JSON, caches, the edges of the context, interruptions.
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
tiny=tests/golden/tiny/llama.gguf
run=("$keyhole" run -m "$tiny" --raw)

# A value of the JSON in $out.
value() {
    printf '%s' "$out" | python3 -c "import json,sys; d=json.load(sys.stdin); print($1)" 2>&1
}
is() {
    local found
    found=$(value "$1")
    checks=$((checks + 1))
    [ "$found" = "$2" ] || bad "$1 is $found, expected $2"
}

runs 0 "${run[@]}" -p "hello" -n 6 --temp 0 --ignore-eos
check "a summary" test -n "$(echo "$err" | grep 'read .* tokens .*; wrote 6 in .*; seed ')"
text=$out
runs 0 "${run[@]}" "hello" -n 6 --temp 0 --ignore-eos -q
check "the same text, by position" test "$out" = "$text"
check "--quiet is quiet: $err" test -z "$err"

runs 0 "${run[@]}" -p "hello" -n 6 --temp 0 --ignore-eos --json --stats
for key in attn text tokens prompt_tokens prompt_seconds generated_tokens generate_seconds peak_bytes kept_mass; do
    has "$(value 'list(d)')" "'$key'"
done
is 'd["attn"]' full
is 'd["generated_tokens"], len(d["tokens"])' "6 6"
is 'round(d["kept_mass"], 3)' 1.0
is 'd["peak_bytes"] > 1000000' True
runs 0 "${run[@]}" -p "hello" -n 6 --attn topk:k=2 --json -q
is 'd["attn"], d["kept_mass"]' "topk:k=2 None"

# A seed that was printed gives the answer again.
runs 0 "${run[@]}" -p "hello" -n 20 --ignore-eos --json -q
first=$(value 'd["tokens"]') seed=$(value 'd["seed"]')
runs 0 "${run[@]}" -p "hello" -n 20 --ignore-eos --json -q --seed "$seed"
is 'd["tokens"]' "$first"
runs 0 "${run[@]}" -p "hello" -n 20 --ignore-eos --json -q --seed 7
check "another seed gives another answer" test "$(value 'd["tokens"]')" != "$first"

# Where the prompt comes from: -f, then -p; standard input. All four tokenise to the same length.
printf 'Grüße,\n日本 😀' >"$scratch/text"
runs 0 "${run[@]}" -f "$scratch/text" -p "more" -n 1 --json -q
joined=$(value 'd["prompt_tokens"]')
runs 0 "${run[@]}" -p "$(cat "$scratch/text")

more" -n 1 --json -q
is 'd["prompt_tokens"]' "$joined"
runs 0 bash -c 'printf "%s\n\nmore" "$(cat "$0")" | "$@"' "$scratch/text" "${run[@]}" -n 1 --json -q
is 'd["prompt_tokens"]' "$joined"
runs 0 bash -c 'cat "$0" | "$@"' "$scratch/text" "${run[@]}" -f - -p more -n 1 --json -q
is 'd["prompt_tokens"]' "$joined"
printf 'a\0b' >"$scratch/zero"
runs 2 "${run[@]}" -f "$scratch/zero"
has "$err" "zero byte at byte 1"
printf 'ab\377\376c' >"$scratch/invalid"
runs 0 "${run[@]}" -f "$scratch/invalid" -n 20 --ignore-eos --json -q --seed 3
check "invalid UTF-8 in, valid JSON out" python3 -m json.tool "$scratch/out" /dev/null

# The edges of the context (trained for 128 tokens).
long=$(printf 'q%.0s' {1..200})
runs 1 "${run[@]}" -p "$long" -n 1
has "$err" "the context holds 128"
has "$err" "--longer"
runs 1 "${run[@]}" -p x -c 500
has "$err" "--longer allows it"
runs 0 "${run[@]}" -p "$long" -n 1 -c 500 --longer
runs 0 "${run[@]}" -p "hello" --ignore-eos --json --seed 1
is 'd["finish"]' context
has "$err" "the context of 128 tokens is full; --ctx-shift"
runs 0 "${run[@]}" -p "hello" --ignore-eos --json --seed 1 -n 300 --ctx-shift
is 'd["generated_tokens"], d["finish"]' "300 length"

# A stop string ends the answer and is not part of it.
runs 0 "${run[@]}" -p "hello" -n 60 --ignore-eos --json -q --seed 5
stop=$(value 'd["text"][4:6]')
runs 0 "${run[@]}" -p "hello" -n 60 --ignore-eos --json -q --seed 5 --stop "$stop"
is 'd["finish"]' stop
lacks "$(value 'd["text"]')" "$stop"
runs 0 "${run[@]}" -p "hello" -n 5 --temp 0 --ignore-eos --json -q -l 70+1000
is 'd["tokens"]' "[70, 70, 70, 70, 70]"
runs 0 "${run[@]}" -p "hello" -n 0 --json -q
is 'd["generated_tokens"], repr(d["text"])' "0 ''"

# A prompt that was read is kept, shared by its beginning, and never put in place of another file.
cache=$scratch/cache
runs 0 "${run[@]}" -p "abcdefgh 1" -n 4 --temp 0 --json -q --prompt-cache "$cache"
is 'd["cached_tokens"]' 0
want=$(value 'd["tokens"]')
runs 0 "${run[@]}" -p "abcdefgh 1" -n 4 --temp 0 --json -q --prompt-cache "$cache"
is 'd["tokens"]' "$want"
is 'd["cached_tokens"] == d["prompt_tokens"] - 1' True
runs 0 "${run[@]}" -p "abcdefgh 2" -n 4 --temp 0 --json -q
want=$(value 'd["tokens"]')
runs 0 "${run[@]}" -p "abcdefgh 2" -n 4 --temp 0 --json -q --prompt-cache "$cache"
is 'd["tokens"]' "$want"
is 'd["cached_tokens"] > 3' True
cp "$scratch/text" "$scratch/mine"
runs 1 "${run[@]}" -p x -n 1 --prompt-cache "$scratch/mine"
has "$err" "--prompt-cache"
check "a file of the user is left alone" cmp -s "$scratch/text" "$scratch/mine"
runs 1 "${run[@]}" -p "abcdefgh 1" -n 1 --prompt-cache "$cache" --attn topk:k=4

# A closed pipe is no error; a full disk is one.
forever=("${run[@]}" -p hello --ignore-eos --ctx-shift)
"${forever[@]}" 2>"$scratch/err" | head -c 10 >"$scratch/out"
code=${PIPESTATUS[0]}
check "exit 0 after a closed pipe (was $code)" test "$code" = 0
check "10 bytes arrived" test "$(wc -c <"$scratch/out")" = 10
check "no noise after a closed pipe: $(cat "$scratch/err")" test ! -s "$scratch/err"
if [ -w /dev/full ]; then
    "${run[@]}" -p hello -n 3 --ignore-eos >/dev/full 2>"$scratch/err"
    code=$?
    check "exit 1 on a full disk (was $code)" test "$code" = 1
    has "$(cat "$scratch/err")" "standard output: No space left"
fi

# Ctrl-C ends cleanly: the summary, and 130.
"${forever[@]}" >"$scratch/out" 2>"$scratch/err" &
process=$!
for _ in $(seq 200); do
    [ -s "$scratch/out" ] && break
    sleep 0.05
done
kill -INT $process
wait $process
code=$?
check "exit 130 after Ctrl-C (was $code)" test "$code" = 130
has "$(cat "$scratch/err")" "wrote "
check "the last line is whole" test -z "$(tail -c 1 "$scratch/out")"
lacks "$(cat "$scratch/err")" "keyhole: stopped"

# Without a chat template the prompt is plain text; asking for a template that is unknown is refused.
runs 0 "$keyhole" run -m "$tiny" -p hello -n 1 -q
runs 2 "$keyhole" run -m "$tiny" -p hello -n 1 --chat-template nosuch
has "$err" "chatml"

# A template of the user's: it is run, it may refuse, and its mistakes are named by line.
echo '{% if messages[0].role == "system" %}{{ raise_exception("No system here.") }}{% endif %}{{ x }}' >"$scratch/t"
runs 0 "$keyhole" run -m "$tiny" -p hello -n 1 -q --chat-template-file "$scratch/t" --chat-template-kwargs '{"x": "hi"}'
runs 2 "$keyhole" run -m "$tiny" -p hello -sys s -n 1 --chat-template-file "$scratch/t"
has "$err" "No system here."
runs 2 "$keyhole" run -m "$tiny" -p hello -n 1 --chat-template-file "$scratch/t" --chat-template-kwargs '{"x"}'
has "$err" "template variables: no valid JSON"
printf 'a\n{%% nosuch %%}' >"$scratch/t"
runs 1 "$keyhole" run -m "$tiny" -p hello -n 1 --chat-template-file "$scratch/t"
has "$err" "the chat template, line 2"
has "$err" "--chat-template (chatml"
finish

# Help, version, completion and refusals: which stream, which exit code, which words.
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
tiny=tests/golden/tiny/llama.gguf

runs 0 "$keyhole" --version
has "$out" "keyhole 0."
has "$out" "instruction set: "
has "$out" "jansson"
runs 0 "$keyhole" --help
has "$out" "Usage: keyhole VERB"
has "$out" "tokenize"
check "help says nothing on standard error" test -z "$err"

verbs=$("$keyhole" help --verbs)
check "there are verbs" test "$(echo "$verbs" | wc -l)" -ge 11
while read -r verb; do
    # shellcheck disable=SC2086
    runs 0 "$keyhole" $verb --help
    has "$out" "Usage: keyhole $verb [options]"
    check "help of $verb fits 80 columns" test -z "$(echo "$out" | awk 'length($0) > 80' | grep -v '^  keyhole')"
    page=$out
    # shellcheck disable=SC2086
    runs 0 "$keyhole" help $verb
    check "help $verb is $verb --help" test "$out" = "$page"
    # shellcheck disable=SC2086
    runs 0 "$keyhole" help --man $verb
    has "$out" ".SH SYNOPSIS"
    if command -v man >/dev/null; then
        echo "$out" >"$scratch/page.1"
        complaints=$(LC_ALL=C MANROFFSEQ='' man --warnings -E UTF-8 -l -Tutf8 -Z "$scratch/page.1" 2>&1 >/dev/null)
        check "the manual page of $verb is clean: $complaints" test -z "$complaints"
    fi
done <<<"$verbs"
runs 0 "$keyhole" help --man
has "$out" ".TH KEYHOLE 1"
runs 0 "$keyhole" run -m /nowhere -h
has "$out" "Usage: keyhole run"

# Bad usage: exit 2, the option, the value, what is allowed.
runs 2 "$keyhole"
has "$err" "keyhole: type keyhole run -m FILE.gguf"
has "$err" "tokenize"
refused 2 "--top-p: 1.7 is not between 0 and 1" run -m "$tiny" -p x --top-p 1.7
refused 2 "-n: 'many' is not a whole number between -2 and 16777216" run -n many
refused 2 "-ctk: 'q4_0' is not one of f16, f32, q8_0" run -ctk q4_0
refused 2 "--tepm: unknown option; did you mean --temp?" run --tepm 1
refused 2 "-c: a value is missing (N)" run -c
refused 2 "'rnu' is not a verb; did you mean run?" rnu
refused 2 "--temp: a verb comes first" --temp 1
refused 2 "no model was named: type keyhole run -m FILE.gguf" run -p hello
refused 2 "no model was named: type keyhole show -m FILE.gguf" show
refused 2 "the prompt is given twice" run "$tiny" one -p two
refused 2 "one argument too many" run "$tiny" one two
refused 2 "no text was named" ppl "$tiny"
refused 2 "no document was named" ask "$tiny" "why?"
refused 2 "the text is empty" run "$tiny"
refused 2 "the text is empty" run "$tiny" ""
refused 2 "--logit-bias: 'x+1'" run "$tiny" -p x -l x+1
refused 2 "--logit-bias: 999999 is not a token" run "$tiny" -p x -l 999999+1
refused 2 "no method is called 'tpok'" run "$tiny" -p x --attn tpok:k=4
refused 2 "k" run "$tiny" -p x --attn topk:k=4,recent=4,sinks=1
refused 2 "is not one of bash, zsh, fish" completion tcsh
has "$err" "Type keyhole --help for help."

# What cannot be done: exit 1.
refused 1 "/nowhere.gguf: there is no such file; type keyhole run -m FILE.gguf" run -m /nowhere.gguf -p x
refused 1 "nowhere.gguf: there is no such file" nowhere.gguf
refused 1 "scripts/models" run -m /nowhere.gguf -p x
refused 1 "Makefile" run -m Makefile -p x
refused 1 "tests" run -m tests -p x
refused 1 "/nowhere.txt" run -m "$tiny" -f /nowhere.txt
refused 2 "a verb comes first" "$tiny" -p x

# The environment comes before the command line, and is checked like it.
runs 2 env LLAMA_ARG_CTX_SIZE=none "$keyhole" run -m "$tiny" -p x
has "$err" "LLAMA_ARG_CTX_SIZE: 'none' is not"
runs 0 env LLAMA_ARG_MODEL="$tiny" LLAMA_ARG_N_PREDICT=2 "$keyhole" run -p x --raw --json -q
has "$out" '"generated_tokens":2'

# Flags of llama.cpp without a meaning here: one note.
runs 0 "$keyhole" run -m "$tiny" -p x --raw -n 1 -ngl 99 -fa on -ub 256 --mlock --no-mmap
has "$err" "note: -ngl, -fa, -ub, --mlock, --no-mmap: accepted"
check "one note" test "$(echo "$err" | grep -c note)" = 1

# Completion: whole words of the tables.
for shell in bash zsh fish; do
    runs 0 "$keyhole" completion $shell
    has "$out" min-p
done
"$keyhole" completion bash >"$scratch/completion"
check "bash reads its completion" bash -n "$scratch/completion"
complete_bash() {
    bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _keyhole 2>/dev/null; echo "${COMPREPLY[@]}"' \
        "$scratch/completion" "$@"
}
has "$(complete_bash keyhole tok)" tokenize
has "$(complete_bash keyhole run --temp)" --temperature
has "$(complete_bash keyhole run -ctk '')" q8_0
has "$(complete_bash keyhole bench recall --de)" --demo
lacks "$(complete_bash keyhole bench --de)" --demo
has "$(complete_bash keyhole tokeni)" tokenizer
has "$(complete_bash keyhole tokenizer tr)" train
lacks "$(complete_bash keyhole tokenizer re)" recall
has "$(complete_bash keyhole tokenizer train --min)" --min-frequency
command -v zsh >/dev/null && "$keyhole" completion zsh >"$scratch/_keyhole" && check "zsh reads its completion" zsh -n "$scratch/_keyhole"
command -v fish >/dev/null && "$keyhole" completion fish >"$scratch/k.fish" && check "fish reads its completion" fish -n "$scratch/k.fish"
finish

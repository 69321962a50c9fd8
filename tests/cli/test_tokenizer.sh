# keyhole tokenizer train: the folder, its report, and what is refused.
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
novel=$PWD/examples/persuasion.txt
cd "$scratch" || exit 1

runs 0 "$keyhole" tokenizer train --vocab 1000 -o made "$novel"
has "$out" "made: 1000 tokens (743 merges) from 466.9 kB"
check "nothing on standard error" test -z "$err"
python 't=json.load(open("made/tokenizer.json")); c=json.load(open("made/tokenizer_config.json"))
assert len(t["model"]["vocab"]) == 1000 and len(t["model"]["merges"]) == 743, t["model"]
assert [a["content"] for a in t["added_tokens"]] == ["<|endoftext|>"] == [c["bos_token"]] == [c["eos_token"]], c'
runs 0 "$keyhole" tokenize -m made "The keyhole.<|endoftext|>" --json
python 'd=json.load(open(sys.argv[1]))
assert "".join(d["pieces"]) == "The keyhole.<|endoftext|>" and d["ids"][-1] == 0, d' "$scratch/out"

# the same bytes again, from standard input, in another folder
"$keyhole" tokenizer train --vocab 1000 -o again/ -q - <"$novel" >"$scratch/out"
check "the same tokenizer" cmp made/tokenizer.json again/tokenizer.json
refused 1 "made/tokenizer.json: exists already" tokenizer train -o made "$novel"
runs 0 "$keyhole" tokenizer train --vocab-size 300 -o made -f "$novel" --json --pre qwen2 --special "eos=<|im_end|>" --special "<|im_start|>"
python 'd=json.load(open(sys.argv[1]))
assert d["vocabulary"] == d["asked"] == 300 and d["special"] == 2 and d["merges"] == 42 and d["kind"] == "bpe", d
assert d["documents"] == 1 and d["bytes"] == 466853 and d["tokens"] < d["bytes"] and d["distinct"] < d["words"], d' "$scratch/out"

# bytes
runs 0 "$keyhole" tokenizer train --kind bytes -o bytes --special "pad=<pad>"
check "one line" test "$out" = "bytes: 257 tokens"
runs 0 "$keyhole" tokenize -m bytes "aé<pad>" --ids -q
check "a byte is its id" test "$(echo $out)" = "97 195 169 256"

# little text
printf 'keyhole' >one
runs 0 "$keyhole" tokenizer train --vocab 300 --min-frequency 1 -o few one
has "$err" "note: the text gave 6 merges: 263 tokens instead of 300"
printf 'ab\377 ab\377' >bad
runs 0 "$keyhole" tokenizer train --vocab 259 --no-special -o bad-made bad
has "$err" "1 of 1 texts are not UTF-8"
printf '{"text": "one text"}\n{"no": 1}\n' >x.jsonl
refused 1 "x.jsonl, line 2: \"text\" is nothing" tokenizer train -o x x.jsonl
check "no folder was made" test ! -e x
: >empty
refused 2 "there is no text to learn from: 1 texts" tokenizer train -o x empty
refused 2 "256 bytes and 1 special tokens need 257" tokenizer train -o x --vocab 256 "$novel"
refused 2 "no text was named" tokenizer train -o x
refused 2 "no folder was named" tokenizer train "$novel"
refused 2 "learns from no text" tokenizer train --kind bytes -o x "$novel"
refused 1 "nowhere" tokenizer train -o x nowhere
refused 1 "cannot be made" tokenizer train -o "$scratch/no/where" "$novel"
refused 1 "gpt-2" tokenizer train -o x --pre gpt-5 "$novel"
finish

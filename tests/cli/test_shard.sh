# keyhole tokenize --shard: the file as docs/formats.md describes it, read by a few lines of Python.
. tests/cli/lib.sh
unset "${!LLAMA_ARG_@}"
model=$PWD/tests/golden/tiny/llama.gguf
cd "$scratch" || exit 1

mkdir texts
printf 'The first one.\n--\nThe second.\n' >texts/a.txt
printf '{"text": "In a line."}\n\n{"prompt": "Ask", "completion": " me."}\n{"text": ""}\n' >texts/b.jsonl
runs 0 "$keyhole" tokenize -m "$model" --shard one.khtok --separator=-- texts --json -q
python 'd=json.load(open(sys.argv[1]))
assert (d["files"], d["documents"], d["empty"]) == (2, 5, 1), d' "$scratch/out"
cp out first.json

ids() { # of a text, without what stands around it
    "$keyhole" tokenize -m "$model" "$1" --no-edges --no-special --ids -q | tr '\n' ' '
}
python 'import os
raw = open("one.khtok", "rb").read()
magic, version, width, flags, count, documents, vocabulary, digest, rest = struct.unpack_from("<8sIIQQQQQQ", raw)
assert (magic, version, width, flags, documents, rest) == (b"khtokens", 1, 2, 1, 5, 0)
ids = struct.unpack_from(f"<{count}H", raw, 64)
at = 64 + (2 * count + 7) // 8 * 8
ends = struct.unpack_from("<5Q", raw, at)
assert at + 40 == len(raw) and ends[-1] == count and digest
texts, begin = [], 0
for end in ends:
    texts.append(ids[begin:end]); begin = end
wanted = [[int(i) for i in text.split()] for text in sys.argv[1:]]
def strip(document): return [i & 0x7FFF for i in document]
def inside(document, words): return any(document[i:i+len(words)] == words for i in range(3))
assert inside(strip(texts[0]), wanted[0]) and inside(strip(texts[1]), wanted[1]) and inside(strip(texts[2]), wanted[2])
assert texts[4] == ()
assert not any(i >> 15 for d in texts[:3] for i in d)
hidden = [i >> 15 for i in texts[3][1:]] # nobody predicts the first
assert hidden == sorted(hidden, reverse=True) and 0 < sum(hidden) < len(hidden), hidden' \
    "$(ids $'The first one.\n')" "$(ids $'The second.\n')" "$(ids 'In a line.')"

runs 0 "$keyhole" tokenize -m "$model" --shard ends.khtok --separator=-- --eos add texts --json -q
python 'one, ends = (json.load(open(name))["tokens"] for name in sys.argv[1:])
assert ends == one + 3, (one, ends) # a completion has its eos in both' first.json out
refused 1 "one.khtok: is there already" tokenize -m "$model" --shard one.khtok texts
runs 0 "$keyhole" tokenize -m "$model" --shard two.khtok one.khtok --json -q
check "a shard of a shard is the same" cmp one.khtok two.khtok
runs 0 "$keyhole" tokenize -m "$model" --shard one.khtok --separator=-- texts --force
has "$err" "5 documents (1 with nothing to learn)"
check "the same bytes again" cmp one.khtok two.khtok
refused 2 "name the files and folders" tokenize -m "$model" --shard three.khtok
printf '{"text": "fine"}\n{"text": 3}\n' >bad.jsonl
refused 1 "bad.jsonl: line 2: \"text\" is expected to be a string, found an integer" \
    tokenize -m "$model" --shard three.khtok bad.jsonl
check "nothing is left of a failure" test ! -e three.khtok
head -c 100 one.khtok >cut.khtok
refused 1 "cut.khtok: the file has 100 bytes" tokenize -m "$model" --shard three.khtok cut.khtok
finish

# Sourced by the scripts in tests/cli: the binary, a scratch folder, and a few checks.
#
#   check "what is proved" command...      the command must succeed
#   runs 0 "$keyhole" --version            exit code; leaves $out and $err (texts)
#   has "$out" "keyhole"                   a text contains a text
#   python 'assert ...' words...           a program must succeed; the words are sys.argv[1:]
#   refused 2 "sentence" words...          keyhole WORDS ends so, with "keyhole: " and the sentence alone
#   need_model smollm2                     sets $model, or skips the script
#   finish                                 last line: reports and exits

set -u
keyhole=${KEYHOLE:?KEYHOLE names the binary under test}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0 checks=0 out='' err=''

skip() {
    echo "skipped: $*"
    exit 77
}

bad() {
    failed=$((failed + 1))
    echo "FAILED: $*"
}

check() {
    local what=$1
    shift
    checks=$((checks + 1))
    "$@" || bad "$what"
}

runs() {
    local want=$1 got=0
    shift
    checks=$((checks + 1))
    "$@" >"$scratch/out" 2>"$scratch/err" </dev/null || got=$?
    out=$(tr -d '\0' <"$scratch/out") err=$(tr -d '\0' <"$scratch/err")
    [ "$got" = "$want" ] || bad "exit $got, expected $want: $* (stderr: $err)"
}

has() {
    checks=$((checks + 1))
    case $1 in *"$2"*) ;; *) bad "expected '$2' in: $1" ;; esac
}

python() {
    checks=$((checks + 1))
    python3 -c "import csv,html.parser,json,re,struct,sys
$1" "${@:2}" || bad "$1"
}

refused() {
    local want=$1 sentence=$2
    shift 2
    runs "$want" "$keyhole" "$@"
    has "$err" "$sentence"
    check "a refusal begins with its program's name: $err" test "${err#keyhole: }" != "$err"
    check "nothing on standard output: $*" test -z "$out"
}

lacks() {
    checks=$((checks + 1))
    case $1 in *"$2"*) bad "did not expect '$2' in: $1" ;; esac
}

need_model() {
    local folder=${KEYHOLE_MODELS:-$HOME/.cache/keyhole/models} file
    case $1 in
    smollm2) file=SmolLM2-135M-Instruct.Q4_1.gguf ;;
    gemma3) file=gemma-3-270m-q4_k_m.gguf ;;
    minilm) file=all-MiniLM-L6-v2 ;;
    *) bad "no model is called $1" && finish ;;
    esac
    model=$folder/$file
    [ -r "$model" ] && return
    [ "${KEYHOLE_REQUIRE_MODELS:-0}" = 1 ] && bad "the model $1 is missing: scripts/models --all" && finish
    skip "the model $1 is missing (scripts/models --all obtains it)"
}

finish() {
    echo "$checks checks, $failed failed"
    exit $((failed > 0))
}

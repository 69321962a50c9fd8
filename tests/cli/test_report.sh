# keyhole bench report: one page from several files, nothing loaded, nothing broken out of, and the
# old page kept when it cannot be written.
. tests/cli/lib.sh

cat >"$scratch/ours.json" <<'END'
{"machine": {"cpu": "Abacus </script><script>alert(1)</script><!-- & ü", "cores": 2},
 "command": "keyhole bench attention --json",
 "results": [
  {"impl": "keyhole", "work": "attention", "attn": "topk:k=128", "pass": "fwd", "L": 2048, "heads": 12,
   "head_dim": 64, "k": 128, "threads": 1, "seconds_min": 0.05, "seconds_median": 0.051, "peak_bytes": 4096000},
  {"impl": "keyhole", "work": "attention", "attn": "topk:k=128", "pass": "fwd", "L": 4096, "heads": 12,
   "head_dim": 64, "k": 128, "threads": 1, "seconds_min": 0.11, "seconds_median": 0.12, "peak_bytes": 8192000}]}
END
cat >"$scratch/peer.json" <<'END'
{"results": [{"impl": "torch", "attn": "full", "pass": "fwd", "L": 4096, "seconds_min": 0.4, "note": "<b>"}]}
END

runs 0 "$keyhole" bench report "$scratch/ours.json" "$scratch/peer.json" -o "$scratch/page.html"
has "$err" "wrote $scratch/page.html"
check "nothing on standard output" test -z "$out"

python '
class Page(html.parser.HTMLParser):
    scripts, inside = [], None
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert not attrs.get(name) or attrs[name] == "data:,", (tag, attrs)
        assert tag not in ("iframe", "object", "embed", "base", "img"), tag
        if tag == "script":
            self.scripts.append([attrs.get("type"), ""])
            self.inside = True
    def handle_endtag(self, tag):
        self.inside = None
    def handle_data(self, text):
        if self.inside:
            self.scripts[-1][1] += text
text = open(sys.argv[1], encoding="utf-8").read()
page = Page()
page.feed(text)
types = [kind for kind, _ in page.scripts]
assert sorted(types) == ["application/json", "module"], types
script, data = page.scripts[types.index("module")][1], page.scripts[types.index("application/json")][1]
assert "<" not in data and "\\u003c/script>" in data, data
assert "@data@" not in text
for call in (r"\bimport\s*\(", r"\bfetch\s*\(", "XMLHttpRequest", "sendBeacon", "EventSource", r"\bimport[^;]{0,99}from\b"):
    assert not re.search(call, script), call
for address in set(re.findall(r"https?://[^\"\x27\s)`]*", re.sub(r"<!--.*?-->", "", text, flags=re.S))):
    assert address.startswith("http://www.w3.org/"), address  # names of XML spaces, never loaded
style = re.search(r"<style>(.*?)</style>", text, re.S).group(1)
assert "url(" not in style and "@import" not in style
policy = re.search(r"Content-Security-Policy\" content=\"([^\"]*)", text).group(1)
assert policy.startswith("default-src \x27none\x27"), policy

got = json.loads(data)
want = [json.load(open(path, encoding="utf-8")) for path in sys.argv[2:]]
assert got["runs"] == want, got
assert got["command"].startswith("keyhole bench report ") and "peer.json" in got["command"], got["command"]
assert got["version"] and got["commit"]
' "$scratch/page.html" "$scratch/ours.json" "$scratch/peer.json"

# Standard input and output; words of the command line that a shell would split are quoted.
runs 0 sh -c "'$keyhole' bench report - -q -o - <'$scratch/peer.json'"
has "$out" '"note":"\u003cb>"'
check "--quiet is quiet: $err" test -z "$err"
cp "$scratch/peer.json" "$scratch/it's a peer.json"
runs 0 "$keyhole" bench report "$scratch/it's a peer.json" -o -
has "$out" "'$scratch/it'\\\\''s a peer.json'"

# Refusals leave the page that was there.
cp "$scratch/page.html" "$scratch/before"
leaves_page() { # leaves_page <exit> <sentence> <JSON text>
    printf '%s' "$3" >"$scratch/bad.json"
    runs "$1" "$keyhole" bench report "$scratch/ours.json" "$scratch/bad.json" -o "$scratch/page.html"
    has "$err" "bad.json: $2"
    check "the old page stands" cmp -s "$scratch/page.html" "$scratch/before"
}
leaves_page 1 'line 1: no JSON' '{"results": ['
leaves_page 1 'the list "results" is missing' '{"machine": {}}'
leaves_page 1 'the list "results" is missing' '[1]'
leaves_page 1 '"machine" is no object' '{"machine": 1, "results": []}'
leaves_page 1 'results[0]: "impl" is no text' '{"results": [7]}'
leaves_page 1 'results[0]: "L" is no length' '{"results": [{"impl": "a", "attn": "b", "pass": "fwd", "L": 0}]}'
leaves_page 1 'results[0]: "seconds_min" is no number' '{"results": [{"impl": "a", "attn": "b", "pass": "fwd", "L": 1, "seconds_min": "x"}]}'
leaves_page 1 'line 1: no JSON' '{"results": [{"L": NaN}]}'
runs 2 "$keyhole" bench report "$scratch/ours.json"
has "$err" "-o FILE.html"
runs 2 "$keyhole" bench report -o "$scratch/page.html"
has "$err" "no results were named"
runs 1 "$keyhole" bench report "$scratch/nowhere.json" -o "$scratch/page.html"
has "$err" "nowhere.json"
runs 1 "$keyhole" bench report "$scratch/ours.json" -o "$scratch/no-folder/page.html"
has "$err" "no-folder"
check "nothing half written stays" test "$(find "$scratch" -name 'page.html*' | wc -l)" = 1

# --report after a run: the page beside the usual output.
runs 0 "$keyhole" bench attention -t 1 -r 1 -L 64,128 --heads 2 --head-dim 16 -k 8 --report "$scratch/run.html"
has "$out" "topk:k=8"
runs 0 "$keyhole" bench attention -t 1 -r 1 -L 64 --heads 2 --head-dim 16 -k 8 --json --report "$scratch/run2.html" -q
python '
for path, lengths in ((sys.argv[1], [64, 128]), (sys.argv[2], [64])):
    text = open(path, encoding="utf-8").read()
    got = json.loads(re.search(r"id=\"data\">(.*?)</script>", text, re.S).group(1))
    (one,) = got["runs"]
    assert [(r["impl"], r["attn"], r["L"]) for r in one["results"]] == [("keyhole", "topk:k=8", L) for L in lengths]
    assert one["machine"]["cpu"] and got["command"].startswith("keyhole bench attention -t 1"), got
printed = json.load(open(sys.argv[3]))
assert printed == one, (printed, one)
' "$scratch/run.html" "$scratch/run2.html" "$scratch/out"
finish

# not under: address|undefined|thread
"""The page of keyhole bench report in a browser: curves, table, ratios, keyboard, tooltips, phone, dark."""
import json
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, "tests/page")
from browser import Browser, need_browser  # noqa: E402
from checks import check, check_looks, check_quiet, finish  # noqa: E402

KEYHOLE = os.environ["KEYHOLE"]
LENGTHS = (2048, 4096, 8192, 16384)


def row(impl, attn, which, length, seconds, peak, **more):
    return {"impl": impl, "work": "attention", "attn": attn, "pass": which, "L": length, "heads": 12,
            "head_dim": 64, "k": 128 if attn.startswith("topk") else 0, "threads": 1,
            "seconds_min": seconds, "seconds_median": seconds * 1.02, "peak_bytes": peak, **more}  # fmt: skip


def results():
    """Ours in one file, a peer in another: the peer takes 8 times as long at 16k, 4 times at 8k."""
    ours, peer = [], []
    for which, factor in (("fwd", 1.0), ("fwd+bwd", 3.0)):
        for L in LENGTHS:
            n = L / 2048
            ours.append(row("keyhole", "topk:k=128", which, L, 0.05 * factor * n, int(4e6 * n), batch=1, kv_heads=12, causal=True))
            ours.append(row("keyhole", "full", which, L, 0.04 * factor * n * n, int(3e6 * n), batch=1, kv_heads=12, causal=True))
            peer.append(row("torch", "full", which, L, 0.05 * factor * n * n, int(5e6 * n)))
        peer.append(row("paper", "topk:k=128", which, 2048, 0.9 * factor, 400_000_000, chunk=1024))
    machine = {"cpu": "Abacus 9 @ 1 Hz <b>", "isa": "avx512", "cores": 2, "memory_bytes": 24 << 30, "gigaflops_per_core": 118.4}
    return {"machine": machine, "results": ours}, {"machine": machine, "results": peer}


def write_page(folder):
    files = []
    for i, document in enumerate(results()):
        files.append(os.path.join(folder, f"{i}.json"))
        with open(files[-1], "w", encoding="utf-8") as f:
            json.dump(document, f)
    page = os.path.join(folder, "page.html")
    subprocess.run([KEYHOLE, "bench", "report", *files, "-o", page, "-q"], check=True)
    return page


def check_curves(page):
    count = lambda selector: page.eval(f"document.querySelectorAll({json.dumps(selector)}).length")
    check("a picture for each pass and metric", count("figure svg.curves") == 4, count("figure svg.curves"))
    # 3 series of 4 lengths and one of 1, in each of 4 pictures
    check("every point is drawn", count("g[aria-label=dot] path, g[aria-label=dot] circle") >= 4 * 13,
          count("g[aria-label=dot] path, g[aria-label=dot] circle"))  # fmt: skip
    check("every series is a line", count("figure svg.curves g[aria-label=line] path") == 4 * 4,
          count("figure svg.curves g[aria-label=line] path"))  # fmt: skip
    names = page.eval("[...document.querySelector('figure svg.curves').querySelectorAll('g[aria-label=text] text')].map(t => t.textContent)")
    for name in ("keyhole topk:k=128", "keyhole full", "torch full", "paper topk:k=128"):
        check(f"the curve of {name} is named at its end", name in names, names)
    ticks = page.eval("[...document.querySelectorAll('figure:first-of-type svg.curves g[aria-label$=\"tick label\"] text')].map(t => t.textContent.replaceAll('\\xa0', ' '))")
    check("lengths are read as 2k to 16k", {"2k", "4k", "8k", "16k"} <= set(ticks), ticks)
    check("times have units", any(tick.endswith(" ms") for tick in ticks), ticks)
    # Logarithmic: full attention is straight, and twice as steep as top-k.
    slopes = page.eval("""[...document.querySelector('figure svg.curves').querySelectorAll('g[aria-label=line] path')].map(path => {
        const p = path.getAttribute('d').match(/[ML][^ML]+/g).map(s => s.slice(1).split(',').map(Number));
        return p.length < 4 ? [0, 0] : [(p[1][1] - p[0][1]) / (p[1][0] - p[0][0]), (p[3][1] - p[2][1]) / (p[3][0] - p[2][0])];
    })""")
    topk, full = slopes[0], slopes[1]
    check("both axes are logarithmic", abs(full[0] / topk[0] - 2) < 0.05 and abs(full[1] / full[0] - 1) < 0.05, slopes)


def check_numbers(page):
    text = page.text()
    check("the machine", "Abacus 9 @ 1 Hz <b>" in text and "118 GFLOP/s a core" in text, text[:300])
    check("the command", re.search(r"keyhole bench report \S+0\.json \S+1\.json -o", text), text[-900:])
    check("the finding", "Forward at L = 16k: keyhole topk:k=128 takes 400 ms, 8.0 times faster than torch full (3.20 s)" in text, text[:900])
    rows = page.eval("[...document.querySelectorAll('table')].map(t => [...t.querySelectorAll('tbody tr')].map(r => r.innerText.replaceAll('\\xa0', ' ')))")
    check("a table for each pass, a row for each point", [len(t) for t in rows] == [13, 13], [len(t) for t in rows])
    at_8k = [r for r in rows[0] if "topk:k=128" in r and "200 ms" in r]
    check("a row has time, ratio, memory, ratio", at_8k and re.search(r"200 ms\s+4\.0×\s+204 ms\s+16\.0 MB\s+1\.3×", at_8k[0]), at_8k)
    page.eval("""(() => { const s = document.querySelector('select'); s.value = 'keyhole full';
        s.dispatchEvent(new Event('change', {bubbles: true})); })()""")
    page.settle()
    text = page.text()
    check("ratios follow the choice", "6.4 times faster than keyhole full (2.56 s)" in text, text[:900])


def check_hands(page):
    spoken = lambda: page.eval("document.querySelector('figure [aria-live]').textContent").replace("\xa0", " ")
    tip = lambda: page.eval("document.querySelector('.picture g[aria-label=tip]')?.textContent ?? ''").replace("\xa0", " ")
    page.eval("document.querySelector('.picture').focus()")
    page.key("ArrowRight")
    page.key("ArrowRight")
    check("arrows go along a curve", "keyhole topk:k=128, L = 4k: 100 ms" in spoken(), spoken())
    page.key("ArrowUp")
    check("and to the next", "keyhole full, L = 4k: 160 ms" in spoken(), spoken())
    check("what is spoken is shown", "160 ms" in tip(), tip())
    page.key("Escape")
    spot = page.eval("""(() => { document.activeElement.blur(); scrollTo(0, 0);
        const dot = [...document.querySelector('figure svg.curves g[aria-label=dot]').querySelectorAll('path, circle')].pop();
        dot.scrollIntoView({block: 'center'});
        const box = dot.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()""")
    page.move(spot[0] - 5, spot[1])
    page.move(*spot)
    check("the pointer shows a point", "keyhole topk:k=128" in tip(), tip())
    page.eval("document.querySelectorAll('.legend button')[2].click()")
    page.settle()
    lines = page.eval("document.querySelectorAll('figure svg.curves g[aria-label=line] path').length")
    check("a series can be hidden", lines == 4 * 3, lines)


def check_other_work(browser, folder):
    """Selection beside attention; a layer at one length over its hidden widths; two processors."""
    ff = [{**row("keyhole", attn, "fwd", 4096, 0.1 * n, 10**6, width=768, act="relu"), "work": "ff", "ff": 4096 * n}
          for attn in ("full", "topk:k=512") for n in (1, 4, 16)]  # fmt: skip
    select = [{**row("keyhole", "topk:k=128", "fwd", L, L * 1e-9, 0), "work": "select", "heads": 1, "head_dim": 0, "scores": "ties"}
              for L in (16384, 65536)]  # fmt: skip
    other = [row("keyhole", "0-1=full;2-=topk:k=128,min-p=0.01,tail=mean", "fwd", 8000, 1e-5, 0), {"impl": "keyhole"}]
    path = os.path.join(folder, "other.json")
    page_path = os.path.join(folder, "other.html")
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"machine": {"cpu": "Abacus 1"}, "results": ff + select}, f)
    with open(path + "2", "w", encoding="utf-8") as f:
        other[1] = {**other[0], "L": 1, "seconds_min": None}
        json.dump({"machine": {"cpu": "Abacus 2"}, "results": other}, f)
    subprocess.run([KEYHOLE, "bench", "report", path, path + "2", "-o", page_path, "-q"], check=True)
    page = browser.page(width=390)
    page.open(page_path)
    text = page.text()
    titles = page.eval("[...document.querySelectorAll('section h2')].map(h => h.innerText)")
    check("a part for each kind of work", titles == [
        "Feed-forward layer, width 768, L = 4k, relu, 1 thread",
        "Selection of the k largest, k = 128, scores: ties, 1 thread",
        "12 heads of 64, causal, 1 thread",
    ], titles)  # fmt: skip
    letters = page.eval("[...document.querySelectorAll('thead th:first-child')].map(t => t.innerText)")
    check("the layer is drawn over its hidden width", letters == ["F", "L", "L"], letters)
    check("each part names its machine", text.count("Abacus 1") == 2 and text.count("Abacus 2") == 1, text[:200])
    check("selection is called so", "Selection: time of a row" in text, text[:200])
    check("what cannot be drawn is counted", "left out: 1" in text, text[:200])
    check("no complaints about odd results", not page.complaints(), page.complaints())
    wide = page.eval("document.documentElement.scrollWidth")
    check("a long setting does not stick out", wide <= 390, wide)


def main():
    need_browser()
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        path = write_page(folder)
        page = browser.page()
        page.open(path)
        check_curves(page)
        check_numbers(page)
        check_hands(page)
        check_quiet(page)
        check_looks(browser, path)
        check_other_work(browser, folder)
        empty = browser.page()
        empty.open("web/dist/report.html")
        check("the template by itself says so", "holds no results" in empty.text())
    finish()


main()

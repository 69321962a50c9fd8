# not under: address|undefined|thread
"""The page of keyhole train report in a browser: curves, names, findings, switches, keyboard, phone, dark, long runs."""
import json
import math
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, "tests/page")
from browser import Browser, need_browser  # noqa: E402
from checks import check, check_looks, check_quiet, finish  # noqa: E402

KEYHOLE = os.environ["KEYHOLE"]


def write_run(folder, name, config, steps, floor, every=1, upto=None, evals=20):
    """Loss falls as floor + 4 e^(-step / 40), to the eye and to the digit; 100 tokens a second and 2 in the second half."""
    path = os.path.join(folder, name)
    os.makedirs(path)
    with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as f:
        json.dump({"arch": "llama:layers=2 <b>", "steps": steps, "lr": 0.002, "seed": 0, "output": path, **config}, f)
    loss = lambda step: floor + 4 * math.exp(-step / 40)
    with open(os.path.join(path, "metrics.jsonl"), "w", encoding="utf-8") as f:
        for step in range(0, (upto or steps) + 1):
            line = {"step": step, "loss": loss(step), "accuracy": min(1, step / steps), "lr": 0.002 * (1 - step / steps),
                    "norm": 1 + step / steps, "tokens_per_second": 100, "seconds": step, "peak_bytes": 10**8}  # fmt: skip
            if step and step % every == 0:
                f.write(json.dumps(line) + "\n")
            if evals and step % evals == 0:
                f.write(json.dumps({"step": step, "eval_loss": loss(step) + 0.1, "eval_accuracy": 0.5, "eval_rows": 9}) + "\n")
    return path


def write_page(folder, name, *runs):
    page = os.path.join(folder, name + ".html")
    subprocess.run([KEYHOLE, "train", "report", *runs, "-o", page, "-q"], check=True)
    return page


def count(page, selector):
    return page.eval(f"document.querySelectorAll({json.dumps(selector)}).length")


def titles(page):
    return page.eval("[...document.querySelectorAll('figcaption')].map(t => t.innerText)")


def choose(page, nth, value):
    page.eval(f"""(() => {{ const s = document.querySelectorAll('.controls select')[{nth}]; s.value = {json.dumps(value)};
        s.dispatchEvent(new Event('change', {{bubbles: true}})); }})()""")
    page.settle()


def line_of(page, picture, nth):
    """The vertices of a curve, in pixels."""
    return page.eval(f"""document.querySelectorAll('.picture-{picture} svg.curves g[aria-label=line] path')[{nth}]
        .getAttribute('d').match(/[MLC][^MLC]+/g).map(s => s.slice(1).split(',').map(Number))""")


def ticks(page, picture, axis):
    return page.eval(f"""[...document.querySelectorAll('.picture-{picture} svg.curves g[aria-label="{axis}-axis tick label"] text')]
        .map(t => t.textContent.replaceAll('\\xa0', ' '))""")


def check_curves(page):
    check("a picture for each number", titles(page) == ["Training loss", "Held-out loss", "Training accuracy", "Held-out accuracy",
          "Learning rate", "Gradient norm", "Tokens a second", "Memory, the most so far"], titles(page))  # fmt: skip
    check("a curve for each run in each", count(page, "figure svg.curves g[aria-label=line] path") == 16,
          count(page, "figure svg.curves g[aria-label=line] path"))  # fmt: skip
    points = page.eval("document.querySelector('.picture-loss .cloud').getAttribute('d').split('M').length - 1")
    check("every logged step is a point", points == 200, points)
    check("every evaluation a symbol", count(page, ".picture-eval-loss g[aria-label=dot] path, .picture-eval-loss g[aria-label=dot] circle") >= 22)
    names = page.eval("[...document.querySelectorAll('.picture-loss svg.curves g[aria-label=text] text')].map(t => t.textContent)")
    check("curves are named by what differs", "attn full" in names and "attn topk:k=4" in names, names)
    check("steps and shares at the axes", "200" in ticks(page, "loss", "x") and "50 %" in ticks(page, "accuracy", "y"),
          (ticks(page, "loss", "x"), ticks(page, "accuracy", "y")))  # fmt: skip
    full = line_of(page, "lr", 0)
    check("the learning rate is where it was", abs((full[100][1] - full[0][1]) / (full[199][1] - full[0][1]) - 100 / 199) < 0.01, full[100])
    rate = line_of(page, "rate", 0)
    check("tokens a second of an even run are level", max(y for _, y in rate) - min(y for _, y in rate) < 0.5, rate[:3])


def check_switches(page):
    """With the floor at 0 the loss is a power of e: bent on a linear scale, straight on a logarithmic one."""
    bend = lambda p: (p[150][1] - p[100][1]) / (p[50][1] - p[0][1])
    check("a linear scale first", bend(line_of(page, "loss", 1)) < 0.2, bend(line_of(page, "loss", 1)))
    page.eval("document.querySelector('.controls input').click()")
    page.settle()
    check("a logarithmic scale for losses", abs(bend(line_of(page, "loss", 1)) - 1) < 0.02, bend(line_of(page, "loss", 1)))
    check("with ticks", len(ticks(page, "loss", "y")) >= 3, ticks(page, "loss", "y"))
    choose(page, 1, "time")
    check("over time", "min" in page.text(".picture-loss"), page.text(".picture-loss"))
    choose(page, 1, "steps")
    choose(page, 0, "0")
    page.eval("document.querySelector('.controls input').click()")
    page.settle()
    check("and back", bend(line_of(page, "loss", 1)) < 0.2)
    page.eval("document.querySelectorAll('.legend button')[1].click()")
    page.settle()
    check("a run can be hidden", count(page, "figure svg.curves g[aria-label=line] path") == 8)
    page.eval("document.querySelectorAll('.legend button')[1].click()")
    page.settle()


def check_numbers(page):
    text = page.text()
    low = 4 * math.exp(-5) + 0.1
    check("the best run is found", f"attn topk:k=4: lowest held-out loss at step 200; attn full comes to {low + 1:.3f}" in text, text[:700])
    rows = page.eval("[...document.querySelectorAll('table')[0].querySelectorAll('tbody tr')].map(r => r.innerText.replaceAll('\\xa0', ' '))")
    check("final numbers", len(rows) == 2 and re.search(rf"attn topk:k=4\s+200\s+{low - 0.1:.4g}0?\s+100.0 %\s+{low:.4f}", rows[1]), rows)
    best = page.eval("[...document.querySelectorAll('.best')].map(c => c.innerText)")
    check("the best of a column stands out", f"{low:.4f}" in best and len(best) == 2, best)
    differ = page.text(".differences")
    check("what differs", "attn" in differ and "topk:k=4" in differ and "lr" not in differ.split(), differ)
    shared = page.text(".options")
    check("what is the same", "llama:layers=2 <b>" in shared and "0.002" in shared and "topk" not in shared, shared)
    check("the command", re.search(r"keyhole train report \S+/full \S+/topk -o", text), text[-900:])


def check_hands(page):
    spoken = lambda: page.eval("document.querySelector('.picture-eval-loss [aria-live]').textContent").replace("\xa0", " ")
    tip = lambda: page.eval("document.querySelector('.picture-eval-loss g[aria-label=tip]')?.textContent ?? ''").replace("\xa0", " ")
    page.eval("document.querySelector('.picture-eval-loss .picture').focus()")
    page.key("ArrowRight")
    page.key("ArrowRight")
    check("arrows go along a curve", spoken().startswith(f"attn full, step 20: {1.1 + 4 * math.exp(-0.5):.3f}"), spoken())
    page.key("ArrowDown")
    check("and to the next", spoken().startswith(f"attn topk:k=4, step 20: {0.1 + 4 * math.exp(-0.5):.3f}"), spoken())
    check("what is spoken is shown", "step 20" in tip(), tip())
    page.key("Escape")


def check_one(browser, path):
    """A run by itself, without evaluations, that is not at its end."""
    page = browser.page()
    page.open(path)
    text = page.text()
    check("what it is and how far it came", "50 of 200 steps" in text and "llama:layers=2 <b>" in text, text[:300])
    check("no empty pictures", "Held-out loss" not in titles(page) and len(titles(page)) == 6, titles(page))
    heights = page.eval("[...document.querySelectorAll('figure')].map(f => Math.round(f.getBoundingClientRect().height))")
    check("neighbours are of one height", heights[0] == heights[1] > heights[2] == heights[3], heights)
    check("no names where there is one run", count(page, ".legend") == 0 and count(page, ".differences") == 0)
    check("its options", "attn" in page.text(".options"), page.text(".options"))


def check_seeds(browser, path):
    page = browser.page()
    page.open(path)
    strokes = page.eval("[...document.querySelectorAll('.picture-loss svg.curves g[aria-label=line]')].map(g => g.getAttribute('stroke'))")
    check("seeds share a colour", len(strokes) == 4 and strokes[0] == strokes[1] != strokes[2] == strokes[3], strokes)
    names = page.eval("[...document.querySelectorAll('.picture-loss svg.curves g[aria-label=text] text')].map(t => t.textContent)")
    check("and a name", names.count("attn full") == 1 and names.count("attn topk:k=4") == 1, names)
    legend = page.text(".legend")
    check("the legend tells them apart", "attn full, seed 1" in legend and "attn topk:k=4, seed 0" in legend, legend)


def check_long(browser, path):
    page = browser.page()
    page.open(path)
    text = page.text()
    check("thinning is said", "7,000 logged steps, 4 a point" in text, text[1200:2400])
    check("a band shows the range", count(page, ".picture-loss g[aria-label=area] path") == 1)
    points = page.eval("document.querySelector('.picture-loss .cloud').getAttribute('d').split('M').length - 1")
    check("a quarter of the points", points == 1750, points)


def main():
    need_browser()
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        full = write_run(folder, "full", {"attn": "full"}, 200, 1)
        topk = write_run(folder, "topk", {"attn": "topk:k=4"}, 200, 0)
        two = write_page(folder, "two", full, topk)
        page = browser.page()
        page.open(two)
        check_curves(page)
        check_numbers(page)
        check_switches(page)
        check_hands(page)
        check_quiet(page)
        going = write_page(folder, "one", write_run(folder, "going", {"attn": "full"}, 200, 1, upto=50, evals=0))
        check_one(browser, going)
        seeds = [write_run(folder, f"{attn[:4]}{seed}", {"attn": attn, "seed": seed}, 200, seed / 9, every=10)
                 for attn in ("full", "topk:k=4") for seed in (0, 1)]  # fmt: skip
        sweep = write_page(folder, "sweep", *seeds)
        check_seeds(browser, sweep)
        long = write_page(folder, "long", write_run(folder, "long", {}, 7000, 1, evals=500))
        check_long(browser, long)
        for path in (two, going, sweep, long):
            check_looks(browser, path)
        empty = browser.page()
        empty.open("web/dist/training.html")
        check("the template by itself says so", "holds no runs" in empty.text())
    finish()


main()

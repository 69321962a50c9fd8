# not under: address|undefined|thread
"""The debugger's page as keyhole serve gives it, with a tiny model: it comes up computed, shows the numbers that the routes
answer, and a part that is switched off changes the text."""
import json
import os
import subprocess
import sys
import tempfile

sys.path[:0] = ["tests/page", "tests/api"]
from browser import Browser, need_browser  # noqa: E402
from checks import check, finish  # noqa: E402
from layout import check_layout  # noqa: E402

need_browser()
if subprocess.run([os.environ["KEYHOLE"], "serve", "--help"], capture_output=True, check=False).returncode:
    print("skipped: this build has no server")
    sys.exit(77)
from serving import TINY, Server  # noqa: E402

REST = "!!document.querySelector('.bars') && !!document.querySelector('.snippets, .arithmetic') && document.querySelectorAll('.token.output').length > 0 && !document.querySelector('.busy')"


def text(page, selector):
    return page.text(selector).replace("−", "-")


def check_numbers(page, server):
    """What stands in the page is what the routes say."""
    asked = {"prompt": "The capital of France is"}
    _, why = server.post("/v1/why", asked)
    said = text(page, ".account")
    check("the difference of logits", said.startswith(f"{why['total']:+.2f} logits"), (said, why["total"]))
    names = page.eval("[...document.querySelectorAll('.row button.name')].map(b => b.innerText)")
    check("its strongest parts", names == [part["part"] for part in why["parts"]], names)
    tops = [token["probability"] for token in (why["a"], why["b"])]
    shown = page.eval("[...document.querySelectorAll('.field small')].map(s => parseFloat(s.innerText))")
    check("the probabilities of A and B", all(abs(s - 100 * p) < 0.051 for s, p in zip(shown, tops)), (shown, tops))
    check("the last layer says the same", f"{100 * tops[0]:.1f} %" in text(page, ".told"), text(page, ".told"))
    total = why["embed"] + why["bias"] + why["heads"] + why["neurons"] + why["mlps"] + why["edits"] + why["leftover"]
    check("and the account adds up", abs(total - why["total"]) < 1e-3, why)


def check_switch(page):
    base = text(page, ".side.base p")
    check("the empty list of edits changes nothing", page.eval("document.querySelectorAll('.chip').length") == 0)
    for nth in range(12):
        page.eval(f"document.querySelectorAll('.bars .switch')[{nth}].click()")
        page.wait("!!document.querySelector('.side.edited') && !document.querySelector('.compare.busy')")
        if page.eval("!!document.querySelector('.side.edited .apart')"):
            break
    check("switched off parts change the text", text(page, ".side.edited p") != base, base)
    check("where they part is said", "They part at token" in text(page, ".apart-line"), text(page, ".apart-line"))
    check("KL of each token", page.eval("document.querySelectorAll('.distance-bars i').length") > 0)
    while page.eval("document.querySelectorAll('.chip').length"):
        chips = page.eval("document.querySelectorAll('.chip').length")
        page.key("z", control=True)
        page.wait(f"document.querySelectorAll('.chip').length < {chips}")
    page.wait("!document.querySelector('.compare.busy')")
    check("and back again they do not", text(page, ".side.base p") == base, text(page, ".side.base p"))


def check_views(page, server):
    """Search, patching, steering and diff: of each, what the routes say."""
    rest = " && !document.querySelector('.centre .busy')"
    open_view = lambda nth: page.eval(f"document.querySelectorAll('.rail button')[{nth}].click()")
    tokens = server.post("/v1/text", {"prompt": "The capital of France is"})[1]["tokens"]
    single = next(token["text"] for token in reversed(tokens) if not token["special"])
    open_view(3)
    page.wait("!!document.querySelector('.search input')" + rest)
    page.eval(f"(f => {{ f.value = {json.dumps(json.dumps(single))}; f.form.requestSubmit(); }})(document.querySelector('.search input'))")
    page.wait("document.querySelectorAll('.hits li').length > 0" + rest)
    _, found = server.post("/v1/search", {"words": [single], "ends": "both", "most": 40})
    check("hits of a search", page.eval("[...document.querySelectorAll('.hits b')].map(b => b.innerText)") == [hit["part"] for hit in found["hits"]], page.text(".centre"))
    open_view(4)
    page.wait("!!document.querySelector('.pair')" + rest)
    page.eval("""(([a, b]) => { a.value = 'The capital of France is'; b.value = 'the capital of France is'; a.form.requestSubmit(); })(document.querySelectorAll('.pair input'))""")
    page.wait("(!!document.querySelector('.patch .words') || !!document.querySelector('.patch .refused'))" + rest)
    ask = {"clean": "The capital of France is", "corrupted": "the capital of France is", "kinds": ["heads"]}
    lines = server.request("POST", "/v1/patch", json.dumps(ask))[2].decode().splitlines()
    rows = [row for row in map(json.loads, lines) if row["type"] == "row"]
    shares = [f"{round(100 * share):d}" for row in reversed(rows) for share in row["shares"]]
    shown = page.eval("[...document.querySelectorAll('.map')[1].querySelectorAll('td button')].map(b => b.title)")
    said = [text.replace("−", "-").replace("+", "").split("\xa0")[0] for text in shown]
    check("cells of patching", len(said) == len(shares) > 0 and all(abs(int(a) - int(b)) <= 1 for a, b in zip(said, shares)), (said[:8], shares[:8], lines[:1]))
    open_view(5)
    page.wait("!!document.querySelector('.steer input[name=from]')")
    page.eval(f"""(([a, b]) => {{ a.value = {json.dumps(single)}; b.value = ''; a.form.requestSubmit(); }})(document.querySelectorAll('.steer .pair input'))""")
    check("a direction", page.wait("document.querySelectorAll('.vectors li').length === 1 && document.querySelectorAll('.writes li').length > 0"), page.text(".steer"))
    page.eval("(s => { s.value = 20; s.dispatchEvent(new Event('change', {bubbles: true})); })(document.querySelector('.vectors input[type=range]'))")
    check("steers", page.wait("!!document.querySelector('.side.edited') && !document.querySelector('.compare.busy')") and not page.text(".compare .refused"), page.text(".compare"))
    page.eval("document.querySelector('.chip button:last-child').click()")
    open_view(6)
    page.wait("!!document.querySelector('.diff .pair')" + rest)
    page.eval("(f => { f.value = 'topk:k=1'; f.form.requestSubmit(); })(document.querySelector('.diff .pair input'))")
    page.wait("document.querySelectorAll('.parts li').length > 0" + rest)
    check("where two settings part", "They part first at attention" in page.text(".diff .told"), page.text(".diff"))
    check_layout(page, 1440)


def check_label(page, server, folder):
    """A label that the page writes is listed by the program; so is a view in the list of views."""
    page.eval("document.querySelector('.rail button').click()")
    page.wait("!!document.querySelector('#label') && !document.querySelector('.busy')")
    if server.get("/v1/labels")[0] == 501:
        check("without SQLite the page says so", page.eval("document.querySelector('#label').disabled && document.querySelector('#label').title.includes('SQLite')"))
        return
    part = page.text(".card-panel h2").split()[-1]
    page.eval("document.querySelector('#label').click()")
    page.wait("document.activeElement.matches('.label-text')")
    page.write("wörds <b> ·of it")
    page.key("Enter")
    check("a label is written", page.wait("document.querySelector('#label')?.innerText === 'wörds <b> ·of it'"), page.text(".card-panel header"))
    told = subprocess.run([os.environ["KEYHOLE"], "labels", TINY, "--json"], capture_output=True, text=True, check=True, env={**os.environ, "XDG_DATA_HOME": folder})
    check("keyhole labels lists it", [(one["part"], one["text"]) for one in json.loads(told.stdout)["labels"]] == [(part, "wörds <b> ·of it")], told.stdout)
    page.eval("document.activeElement.blur()")
    page.key("s")
    page.wait("document.activeElement.name === 'view'")
    page.eval("document.activeElement.select()")
    page.write("50 % of Ä?")
    page.key("Enter")
    check("a view is saved", page.wait("document.querySelector('.shelf form + .kept button.open')?.innerText === '50 % of Ä?'"), page.text(".shelf"))
    _, kept = server.get("/v1/views")
    check("as an address", [one["name"] for one in kept["views"]] == ["50 % of Ä?"] and kept["views"][0]["query"].startswith("?prompt=The+capital"), kept)
    page.eval("document.querySelector('.shelf button[aria-label^=Delete]').click()")
    check("and deleted", page.wait("!!document.querySelector('.shelf s')") and server.get("/v1/views")[1] == {"views": []}, page.text(".shelf"))
    page.key("Escape")


def main():
    with tempfile.TemporaryDirectory() as folder, Server(TINY, "--labels", folder + "/keyhole/labels.sqlite") as server, Browser() as browser:
        page = browser.page(width=1440, height=900)
        page.open(f"http://{server.host}:{server.port}/")
        check("a worked example, computed", page.wait(REST, 60), page.text()[-400:])
        page.wait("document.querySelector('.told').innerText.includes('A rank')")
        check("what runs", "llama.gguf" in page.text(".facts") and "F32" in page.text(".facts"), page.text(".facts"))
        check_numbers(page, server)
        check_switch(page)
        check_layout(page, 1440)
        check("the identities hold", page.wait("!!document.querySelector('.mark.good')", 30), page.text(".mark"))
        for screen in (1, 2):
            page.eval(f"document.querySelectorAll('.rail button')[{screen}].click()")
            check("a view of all of them", page.wait("!!document.querySelector('.matrix button[style], .layers li')"), page.text(".centre"))
        page.eval("document.querySelectorAll('.layers button')[0].click()")
        check("a neuron's card", page.wait("!!document.querySelector('.arithmetic')"), page.text(".card-panel"))
        check_views(page, server)
        check_label(page, server, folder)
        loud = [line for line in page.complaints() if "400" not in line]  # the proposed pair of prompts, as long here as it need not be
        check("no complaints", not loud, loud)
        others = json.dumps([url for url in page.requests() if not url.startswith((f"http://{server.host}:{server.port}/", "data:"))])
        check("nothing is asked elsewhere", others == "[]", others)
    finish()


main()

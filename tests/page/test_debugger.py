# not under: address|undefined|thread
"""The debugger's page in a browser, against a server with made-up numbers: grid, account, switches, base beside edited,
tokens, keys, addresses, exports, sentences of errors, and where everything stands."""
import json
import pathlib
import sys
import tempfile
import time
import urllib.parse

sys.path.insert(0, "tests/page")
from browser import Browser, need_browser  # noqa: E402
from checks import check, finish  # noqa: E402
from layout import check_layout, check_named  # noqa: E402
from mock_debugger import EXAMPLE, VOC, Mock  # noqa: E402

READY = "!!document.querySelector('.bars') && !!document.querySelector('.snippets') && document.querySelectorAll('.token.output').length > 0"


def opened(browser, url, ready=READY, **how):
    page = browser.page(**{"width": 1440, "height": 900, **how})
    page.open(url)
    check("the page comes to rest", page.wait(ready), page.text()[-300:])
    return page


def asked(server, path):
    return [body for where, body in server.asked if where == path]


def asked_for(server, path, good):
    """The last such question, when it has come."""
    end = time.time() + 10
    while time.time() < end:
        found = [body for body in asked(server, path) if good(body)]
        if found:
            return found[-1]
        time.sleep(0.03)
    return {}


def texts(page, selector):
    return page.eval(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText.replaceAll('\\xa0', ' '))")


def query(page):
    page.wait("new Promise(done => setTimeout(() => done(true), 200))")
    return urllib.parse.parse_qs(page.eval("location.search").lstrip("?"))


def place(page, selector, nth=0):
    """The middle of an element."""
    box = page.eval(f"(r => [r.left + r.width / 2, r.top + r.height / 2])(document.querySelectorAll({json.dumps(selector)})[{nth}].getBoundingClientRect())")
    return tuple(box)


def check_first(page, server):
    text = page.text()
    facts = page.text(".facts")
    check("what runs", all(s in facts for s in ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1", "topk:k=64", "61.5 tokens/s", "214 MB")), facts)
    check("the identity checks, when nobody waits", page.wait("document.querySelector('.mark.good')?.innerText.includes('2 checks')"), page.text(".top"))
    check("asked last", server.asked[-1][0] == "/v1/checks" or server.asked.index(("/v1/checks", None)) > 8, [path for path, _ in server.asked])
    told = page.eval("document.querySelector('.mark').getAttribute('aria-label')")
    check("with a name that tells them", "lens passed: the last cell is the model's own distribution" in told, told)
    page.eval("document.querySelector('.mark').focus()")
    check("and details at the focus", page.eval("getComputedStyle(document.querySelector('.mark-told')).display") == "grid")
    page.eval("document.activeElement.blur()")
    check("a worked example", page.eval("document.querySelector('#prompt').value") == EXAMPLE)
    tokens = texts(page, ".token")
    check("its tokens and the output", tokens[:3] == ["Rome", "·is", "·the"] and tokens[12] == "·Paris" and len(tokens) == 32, tokens)
    check("boundaries of tokens behind the prompt", len(texts(page, ".prompt-behind span")) == 12)
    check("defaults: the two best", page.eval("[...document.querySelectorAll('.field input')].map(i => i.value)") == ["·Paris", "·located"])
    check("twelve parts with a switch and a slider", page.eval("document.querySelectorAll('.bars .switch').length") == 12
          and page.eval("document.querySelectorAll('.bars input[type=range]').length") == 12)  # fmt: skip
    check("and the others", {"embed", "others"} <= set(texts(page, ".row.sum .name")))
    check("the leftover as a number", "leftover 3.1e-5" in page.text(".account"), page.text(".account"))
    check("a row of attention", len(texts(page, ".snippets li")) == 5 and "of the mass kept" in page.text(".card-panel"), page.text(".card-panel"))
    check("base text", "Paris, and the river" in page.text(".side.base"), text[-400:])
    check("what is told of the cell", "entropy" in page.text(".told") and "nats" in page.text(".told"), page.text(".told"))
    page.wait("document.querySelector('.told').innerText.includes('A rank')")
    check("ranks of A and B", "A rank 1" in page.text(".told"), page.text(".told"))
    page.wait("new Promise(done => setTimeout(() => done(1), 400))")
    windows = [(body["first"], body["count"]) for body in asked(server, "/v1/lens/prompt") if body["taps"] == ["after"]]
    check("no column is asked for twice", sum(count for _, count in windows) == 32, windows)
    first = asked(server, "/v1/lens/prompt")[0]
    check("the grid is asked for by windows", first["first"] == 0 and first["count"] == 12 and first["top_n"] == 5, first)
    check("views without a route say so", page.eval("[...document.querySelectorAll('.rail button:disabled')].map(b => b.title).every(t => t.includes('does not have it'))"))


def grid_spot(page, position, layer):
    """The middle of a cell, in pixels: as the page's own geometry, from what can be seen of it."""
    return page.eval(f"""(() => {{
        const box = document.querySelector('.grid-box'), r = box.getBoundingClientRect(), wide = box.clientWidth;
        const rank = wide >= 560 ? 132 : wide >= 300 ? 86 : 0, count = document.querySelectorAll('.token').length;
        const column = Math.max(46, Math.min(84, Math.floor((wide - 46 - rank) / count)));
        const row = Math.max(13, Math.min(26, Math.floor((box.clientHeight - 74) / 30)));
        return [r.left + 46 + ({position} + 0.5) * column - box.scrollLeft, r.top + 52 + (29 - {layer} + 0.5) * row - box.scrollTop];
    }})()""")


def check_loop(page, server):
    """Grid, a cell, why, a switch, edited text."""
    page.click(*grid_spot(page, 3, 20))
    check("a click selects a cell", page.wait("document.querySelector('.told').innerText.startsWith('after layer 20 at 3')"), page.text(".told"))
    check("and asks why there", page.wait("document.querySelector('.why header').innerText.includes('position 3')"))
    last = asked_for(server, "/v1/why", lambda body: body["position"] == 3)
    check("of the same text", len(last.get("tokens", [])) == 32 and last["prompt_tokens"] == 12, last)
    page.click(*grid_spot(page, 11, 29))
    page.wait("!document.querySelector('.why.busy') && document.querySelector('.field input').value === '·Paris'")
    name = texts(page, ".row button.name")[2]
    page.click(*place(page, ".bars .switch", 2))
    check("a switch is an edit", page.wait("document.querySelector('.chip-name')?.innerText") == f"{name}:zero", texts(page, ".chip-name"))
    check("edited text beside the base", page.wait("!!document.querySelector('.side.edited .apart')"), page.text(".compare"))
    check("where they part", page.text(".side.edited .apart") == "but" or "but" in page.text(".side.edited .apart"), page.text(".side.edited"))
    check("said in words", "part at token 3" in page.text(".apart-line"), page.text(".apart-line"))
    check("KL of each token", page.wait("document.querySelectorAll('.distance-bars i').length") == 20)
    check("the request had it", asked(server, "/v1/edit")[-1]["edits"] == [f"{name}:zero"])
    check("the command can be copied", name in page.eval("[...document.querySelectorAll('.chips .plain')].at(-1).title"))
    page.eval("(s => { s.value = 0.5; s.dispatchEvent(new Event('change', {bubbles: true})); })(document.querySelectorAll('.bars input[type=range]')[4])")
    check("a slider is an edit", page.wait("document.querySelectorAll('.chip').length === 2") and ":scale=0.5" in texts(page, ".chip-name")[1], texts(page, ".chip-name"))
    check("the address has them", len(query(page).get("edit", [])) == 2, query(page))
    page.key("z", control=True)
    check("Ctrl-Z undoes", page.wait("document.querySelectorAll('.chip').length === 1"), texts(page, ".chip-name"))
    page.eval("document.querySelectorAll('.grid-panel .choice')[1].querySelectorAll('button')[1].click()")
    page.wait("!document.querySelector('.why.busy')")
    check("the grid can read the edited run", page.wait("document.querySelectorAll('.token')[14].innerText === '·but'"), texts(page, ".token"))
    check("under its edits", asked(server, "/v1/lens/prompt")[-1]["edits"] == [f"{name}:zero"])
    page.key("z", control=True)
    check("and goes back without edits", page.wait("document.querySelectorAll('.chip').length === 0 && document.querySelectorAll('.token')[14].innerText === '·and'"))


def check_parts(page, server):
    name = page.eval("[...document.querySelectorAll('.row button.name')].map(b => b.innerText).find(n => n.includes('N'))")
    page.eval(f"[...document.querySelectorAll('.row button.name')].find(b => b.innerText === '{name}').click()")
    check("a neuron's card", page.wait(f"document.querySelector('.card-panel h2').innerText === 'Neuron {name}' && !!document.querySelector('.arithmetic')"))
    card = page.text(".card-panel")
    check("gate, up, product and case", all(s in card for s in ("gate", "activated", "up", "coefficient", "case", "nearest")), card)
    page.key("k", control=True)
    page.write("l5.h3")
    page.key("Enter")
    check("a part by its name", page.wait("document.querySelector('.card-panel h2').innerText === 'Head L5H3'"), page.text(".card-panel"))
    page.wait("!!document.querySelector('.snippets')")
    check("what it writes", "writes" in page.text(".card-panel"))
    page.eval("document.querySelectorAll('.field input')[1].focus()")
    page.eval("document.querySelectorAll('.field input')[1].select()")
    page.write("Lyon")
    page.key("Enter")
    check("B can be written, without its space", page.wait("document.querySelectorAll('.field input')[1].value === '·Lyon'"), asked(server, "/v1/why")[-1])
    check("and stands in the address", "b" in query(page), query(page))
    page.eval("[...document.querySelectorAll('.fields .plain')][1].click()")
    check("and given back", page.wait("document.querySelectorAll('.field input')[1].value === '·located'"))


def check_tokens(page, server):
    page.move(*place(page, ".token", 12))
    check("alternatives at the pointer", page.wait("document.querySelectorAll('.alternatives li').length === 10"), page.text(".popover"))
    check("of the position before", asked(server, "/v1/next")[-1]["first"] == 11, asked(server, "/v1/next")[-1])
    page.click(*place(page, ".token", 12))
    page.move(700, 880)
    check("a click keeps them", page.wait("!!document.querySelector('.alternatives')"))
    page.key("Escape")
    check("Esc lets go", not page.eval("!!document.querySelector('.alternatives')"))
    page.click(*place(page, ".token", 12))
    page.wait("document.querySelectorAll('.alternatives li').length === 10")
    page.click(*place(page, ".alternatives button", 4))
    check("an alternative branches", page.wait("document.querySelectorAll('.token')[12].innerText === '·Lyon'"), texts(page, ".token"))
    check("and the text goes on from it", page.wait("document.querySelectorAll('.token.output').length === 20"), texts(page, ".token"))
    check("the address keeps the tokens", len(query(page)["tokens"][0].split(",")) == 13, query(page))
    page.eval("document.querySelector('.strip-row .plain').click()")
    check("back to the prompt", page.wait("document.querySelectorAll('.token')[12]?.innerText === '·Paris'"))


def check_keys(page):
    page.wait("!document.querySelector('.why.busy')")
    page.eval("document.activeElement.blur()")
    page.key("Escape")
    for key in ("ArrowLeft", "ArrowLeft", "ArrowDown"):
        page.key(key)
    check("arrows move the cell", page.text(".told").startswith("after layer 28 at 9"), page.text(".told"))
    check("the address follows", query(page).get("position") == ["9"] and query(page).get("layer") == ["28"], query(page))
    page.key("Escape")
    check("Esc goes back", page.text(".told").startswith("after layer 29 at 11"), page.text(".told"))
    page.key("?")
    check("? lists the keys", page.eval("document.querySelector('dialog').open"))
    page.key("Escape")
    page.wait("!document.querySelector('dialog').open")
    page.key("/")
    check("/ goes to the prompt", page.eval("document.activeElement.id") == "prompt")
    page.eval("document.querySelector('#prompt').select()")
    page.write("The Seine is a river")
    check("boundaries while writing", page.wait("document.querySelectorAll('.prompt-behind span').length === 5"), texts(page, ".prompt-behind span"))
    page.key("Enter")
    check("Enter runs", page.wait("document.querySelectorAll('.token')[1]?.innerText === '·Seine'"), texts(page, ".token"))
    page.wait("document.querySelectorAll('.token.output').length === 20")


def check_screens(page, server):
    page.eval("document.querySelectorAll('.rail button')[1].click()")
    check("all heads", page.wait("document.querySelectorAll('.matrix button').length === 270"))
    check("coloured", page.wait("!!document.querySelector('.matrix button')?.style.background"))
    page.eval("document.querySelector('.matrix button[aria-label=L20H4]').click()")
    check("a head opens", page.wait("document.querySelector('.card-panel h2').innerText === 'Head L20H4'"))
    page.eval("document.querySelectorAll('.rail button')[2].click()")
    check("dominant neurons of each layer", page.wait("document.querySelectorAll('.layers li').length === 30"))
    page.eval("document.querySelectorAll('.neurons .choice button')[1].click()")
    check("by contribution", page.wait("document.querySelector('.told').innerText.includes('logits')") and asked_for(server, "/v1/neurons", lambda body: body["by"] == "value"))
    page.eval("document.querySelectorAll('.rail button')[0].click()")
    page.eval("document.querySelectorAll('.grid-panel .choice button')[0].click()")
    check("another tap", page.wait("document.querySelector('.told').innerText.startsWith('before layer')"))
    check("is asked for when it is chosen", asked_for(server, "/v1/lens/prompt", lambda body: body["taps"] == ["before"]))


def check_patch(page, server):
    page.eval("document.querySelector('.rail button:nth-child(5)').click()")
    check("patching comes computed", page.wait("document.querySelectorAll('.map')[1]?.querySelectorAll('td button').length === 270 && !document.querySelector('.patch.busy')"))
    body = asked_for(server, "/v1/patch", lambda body: not body.get("cost_only"))
    check("of the two prompts", body["clean"] == "The capital of France is" and body["corrupted"] == "The capital of Italy is" and body["kinds"] == ["pre", "heads"], body)
    check("tokens aligned", texts(page, ".patch thead .parted") == ["·France", "·Italy"], texts(page, ".patch thead th"))
    check("what is the same is not patched", page.eval("document.querySelectorAll('.patch .same').length") == 90)
    check("the metric", "clean +7.30, corrupted −6.00 logits" in page.text(".patch header"), page.text(".patch header"))
    page.eval("document.querySelector('.patch button[aria-label^=\"layer 0, column 3\"]').click()")
    told = page.text(".patch .told")
    check("a cell in numbers", "stream before layer 0 at 3, ·Italy as ·France" in told and "of the way" in told, told)
    page.eval("document.querySelector('.patch .words button').click()")
    check("the strongest head", page.wait("document.querySelector('.patch .told').innerText.includes('head L')"), page.text(".patch .told"))
    page.eval("document.querySelectorAll('.patch .map')[0].querySelectorAll('.choice button')[1].click()")
    check("another map is asked for alone", asked_for(server, "/v1/patch", lambda body: body["kinds"] == ["attn_out"]))
    page.wait("!document.querySelector('.patch.busy')")
    page.eval("document.querySelectorAll('.patch .map')[1].querySelectorAll('.choice button')[1].click()")
    check("paths to the logits", asked_for(server, "/v1/patch", lambda body: body.get("to") == "logits"))
    page.wait("!document.querySelector('.patch.busy')")
    page.eval("(f => { f.value = 'The capital of Italy is now'; f.form.requestSubmit(); })(document.querySelector('.pair input[name=corrupted]'))")
    check("unequal lengths are a sentence in place", page.wait("document.querySelector('.patch .refused')?.innerText.includes('as many are expected')"), page.text(".patch"))
    page.eval("(f => { f.value = 'The capital of Italy is'; f.form.requestSubmit(); })(document.querySelector('.pair input[name=corrupted]'))")
    check("which goes with it", page.wait("!document.querySelector('.patch .refused') && !document.querySelector('.patch.busy')"))
    check("the address has the view", query(page).get("view") == ["patch"], query(page))
    switch = "document.querySelector('.patch .pair .choice button')"
    check("nothing is an estimate", page.eval("document.querySelectorAll('.patch .estimated').length") == 0 and not any(body.get("attribution") for body in asked(server, "/v1/patch")))
    page.eval(f"{switch}.click()")
    check("estimates are asked for", page.wait("document.querySelectorAll('.patch .estimated').length > 0 && !document.querySelector('.patch.busy')") and asked_for(server, "/v1/patch", lambda body: body.get("attribution")))
    page.eval("document.querySelector('.patch .words button').click()")
    check("and are said to be", page.wait("document.querySelector('.patch .told').innerText.includes('estimated')") and page.text(".patch .words button").count("≈") == 1, page.text(".patch .told"))
    check("each cell too", page.eval("[...document.querySelectorAll('.patch td button')].every(b => b.title.startsWith('≈') || b.closest('.map').querySelector('.estimated') === null)"))
    check("the address has them", query(page).get("estimate") == ["1"], query(page))
    page.eval(f"{switch}.click()")
    check("and without", page.wait("!document.querySelector('.patch .estimated') && !document.querySelector('.patch.busy')") and "estimate" not in query(page), query(page))


def check_diff(page, server):
    page.eval("document.querySelector('.rail button:nth-child(7)').click()")
    check("where two settings part", page.wait("document.querySelectorAll('.positions tbody tr').length > 4 && document.querySelectorAll('.parts li').length === 61"), page.text(".centre"))
    check("of attention", asked(server, "/v1/diff")[-1]["attn"] == "topk:k=4", asked(server, "/v1/diff")[-1])
    check("in words", "They part first at attention" in page.text(".diff .told") and "nats on average" in page.text(".diff .told"), page.text(".diff .told"))
    page.eval("document.querySelectorAll('.diff .choice button')[1].click()")
    page.eval("(f => { f.value = 'The'; f.form.requestSubmit(); })(document.querySelector('.pair input'))")
    check("two prompts of other lengths are refused", page.wait("document.querySelector('.diff .refused')?.innerText.includes('as many are expected')"), page.text(".diff"))
    page.eval("document.querySelectorAll('.diff .choice button')[0].click()")
    page.eval("document.querySelector('.pair .run').click()")
    check("and compared again", page.wait("!document.querySelector('.diff .refused') && document.querySelectorAll('.parts li').length === 61"))
    page.eval("document.querySelector('.rail button').click()")


def check_finder(page, server):
    page.eval("document.querySelectorAll('.rail button')[1].click()")
    page.wait("document.querySelectorAll('.heads .choice button').length === 6")
    page.eval("document.querySelectorAll('.heads .choice button')[1].click()")
    check("heads by what they do", page.wait("document.querySelectorAll('.heads .words button').length === 6"), page.text(".heads"))
    body = asked_for(server, "/v1/find-heads", lambda body: body["by"] == "induction")
    check("all of them", body == {"random": 50, "by": "induction", "most": 270}, body)
    first = page.text(".heads .words button").split()[0]
    page.eval("document.querySelector('.heads .words button').click()")
    check("the first one opens", page.wait(f"document.querySelector('.card-panel h2').innerText === 'Head {first}'"))
    page.eval("document.querySelectorAll('.heads .choice button')[0].click()")
    check("and back to this position", page.wait("document.querySelector('.heads header').innerText.includes('at position')"))


def check_search(page, server):
    page.eval("document.querySelectorAll('.rail button')[3].click()")
    check("search comes computed", page.wait("document.querySelectorAll('.hits').length === 2 && document.querySelectorAll('.hits li').length > 40"))
    body = asked(server, "/v1/search")[-1]
    check("for a token with its space, at both ends", body["words"] == [VOC.id(" Paris")] and body["ends"] == "both" and body["by"] == "logit", body)
    hit = page.text(".hits b")
    page.eval("document.querySelector('.hits button').click()")
    check("a hit opens its card", page.wait(f"document.querySelector('.card-panel h2').innerText === 'Neuron {hit}'"), page.text(".card-panel"))
    page.eval("(f => { f.value = 'Lyon  \"Rome\"'; f.form.requestSubmit(); })(document.querySelector('.search input'))")
    check("several words, with a space or in quotes", asked_for(server, "/v1/search", lambda body: body["words"] == [VOC.id(" Lyon"), VOC.id("Rome")]), asked(server, "/v1/search")[-1])
    page.wait("!document.querySelector('.search.busy')")
    page.eval("document.querySelectorAll('.search .pair .choice button')[1].click()")
    check("by cosine", asked_for(server, "/v1/search", lambda body: body["by"] == "cosine"))
    page.wait("!document.querySelector('.search.busy')")
    page.eval("document.querySelectorAll('.search > header .choice button')[1].click()")
    check("heads", page.wait("/^L\\d+H/.test(document.querySelector('.hits b')?.innerText)"), page.text(".hits"))
    page.wait("!document.querySelector('.search.busy')")
    page.eval("(f => { f.value = 'incomprehensibilities'; f.form.requestSubmit(); })(document.querySelector('.search input'))")
    check("a word of several tokens is refused in place", page.wait("document.querySelector('.search .refused')?.innerText.includes('one is expected')"), page.text(".search"))
    check("the address has it", query(page).get("view") == ["search"] and query(page).get("order") == ["cosine"], query(page))


def check_search_text(page, server):
    page.open(server.url + "?prompt=The%20capital%20of%20France%20is&view=search&among=text&words=paris%20Rome")
    check("search by text comes computed", page.wait("document.querySelectorAll('.hits')[1]?.innerText.includes('about paris')"), page.text(".search"))
    check("as it stands", asked(server, "/v1/search/text")[-1] == {"text": "paris Rome", "most": 60}, asked(server, "/v1/search/text")[-1])
    check("what the table will cost", page.wait("document.querySelector('.table-cost button')?.innerText === 'Look them up'"), page.text(".search"))
    check("without making it", asked(server, "/v1/search/table") == [{"layers": 0}] and server.ready == 0, asked(server, "/v1/search/table"))
    (said,) = texts(page, ".table-cost")
    check("neurons, time, bytes", "46,080 neurons, about 29 s, 24.9 MB" in said, said)
    page.eval("document.querySelector('.table-cost button').click()")
    check("it is made, and asked", page.wait("!document.querySelector('.table-cost') && document.querySelectorAll('.hits')[0].children.length === 30"), page.text(".search"))
    check("some layers at a time", asked(server, "/v1/search/table")[1:] == [{"layers": 2}] * 15, asked(server, "/v1/search/table"))
    check("the words that were asked for come first, marked", texts(page, ".hits mark")[:2] == ["·Paris", "·Rome"], texts(page, ".hits mark")[:3])
    check("what suppresses is told apart", page.eval("document.querySelectorAll('.hits .own').length") == 10)
    hit = page.text(".hits b")
    page.eval("document.querySelector('.hits button').click()")
    check("a hit opens its card", page.wait(f"document.querySelector('.card-panel h2').innerText === 'Neuron {hit}'"), page.text(".card-panel"))
    page.eval("document.querySelectorAll('.hits')[1].querySelector('button').click()")
    check("a label opens its part", page.wait("document.querySelector('.card-panel h2').innerText === 'Head L5H3'"), page.text(".card-panel"))
    page.eval("(f => { f.value = 'Lyon'; f.form.requestSubmit(); })(document.querySelector('.search input'))")
    check("another word", asked_for(server, "/v1/search/text", lambda body: body["text"] == "Lyon"))


def check_clusters(page, server):
    page.eval("document.querySelectorAll('.search > header .choice button')[3].click()")
    check("clusters wait for a click", page.wait("document.querySelector('.search form label')?.innerText.includes('groups')") and asked(server, "/v1/clusters") == [])
    page.eval("(f => { f.value = 12; f.form.requestSubmit(); })(document.querySelector('.search input'))")
    check("as many as were asked for", page.wait("document.querySelectorAll('.hits')[0]?.children.length === 12"), page.text(".search"))
    check("of all layers", asked(server, "/v1/clusters")[-1] == {"clusters": 12, "top_n": 20, "members": 100}, asked(server, "/v1/clusters")[-1])
    cosines = [float(x) for x in texts(page, ".hits li span.number:nth-of-type(2)")[:12]]
    check("the closest first", cosines == sorted(cosines, reverse=True), cosines)
    page.eval("document.querySelectorAll('.hits button')[5].click()")
    check("its members", page.wait("document.querySelectorAll('.hits')[1].children.length === 20 && document.querySelectorAll('.hits button')[5].ariaPressed === 'true'"))
    member = page.eval("document.querySelectorAll('.hits')[1].querySelector('b').innerText")
    page.eval("document.querySelectorAll('.hits')[1].querySelector('button').click()")
    check("a member opens its card", page.wait(f"document.querySelector('.card-panel h2').innerText === 'Neuron {member}'"), page.text(".card-panel"))
    check("in the address", query(page).get("among") == ["clusters"] and query(page).get("groups") == ["12"], query(page))


def check_steer(page, server):
    page.eval("document.querySelectorAll('.rail button')[5].click()")
    page.wait("!!document.querySelector('.steer .run')")
    page.eval("document.querySelector('.steer .run').click()")
    check("a direction from two tokens", page.wait("document.querySelector('.vectors li .cut')?.innerText === '·Paris − ·Rome'"), page.text(".steer"))
    check("asked with their spaces", asked(server, "/v1/steer/vector")[-1] == {"name": "·Paris − ·Rome", "from": " Paris", "minus": " Rome"}, asked(server, "/v1/steer/vector")[-1])
    check("what it writes, a line for each layer", page.wait("document.querySelectorAll('.writes li').length === 29 && document.querySelector('.writes li').offsetHeight < 20"))
    page.eval("(s => { s.value = 15; s.dispatchEvent(new Event('change', {bubbles: true})); })(document.querySelector('.vectors input[type=range]'))")
    check("its strength steers the edited text", asked_for(server, "/v1/edit", lambda body: body.get("control_vectors") == [{"id": 0, "scale": 15}]), asked(server, "/v1/edit")[-1])
    check("beside the base", page.wait("!!document.querySelector('.side.edited .apart')"), page.text(".compare"))
    page.eval("[...document.querySelectorAll('.rail button')][0].click()")
    page.wait("!!document.querySelector('.grid-panel .choice button')")
    steering = [{"id": 0, "scale": 15}]
    reading = "document.querySelectorAll('.grid-panel .choice')[1].querySelectorAll('button')"
    page.eval(f"{reading}[1].click()")
    for route in ("/v1/lens/prompt", "/v1/why"):
        check(f"{route} reads under it", asked_for(server, route, lambda body: body.get("control_vectors") == steering), asked(server, route)[-1])
    page.eval(f"{reading}[0].click()")
    check("and again without", page.wait(f"{reading}[0].getAttribute('aria-pressed') === 'true'") and asked_for(server, "/v1/why", lambda body: body is asked(server, "/v1/why")[-1] and "control_vectors" not in body))
    page.eval("document.querySelectorAll('.rail button')[5].click()")
    page.wait("!!document.querySelector('.steer .run')")
    check("and is a chip", texts(page, ".chip-name") == ["·Paris − ·Rome × 15"], texts(page, ".chip-name"))
    page.eval("document.querySelector('.steer .told button').click()")
    check("the server can be steered", page.wait("document.querySelector('.steer .told').innerText.includes('The server adds ·Paris − ·Rome × 15')"), page.text(".steer"))
    check("the address keeps it", query(page).get("steer") == ["·Paris − ·Rome*15"], query(page))
    page.eval("document.querySelector('.chip button:last-child').click()")
    check("the chip takes it away", page.wait("!document.querySelector('.chip') && !document.querySelector('.side.edited')"))
    page.eval("document.querySelector('.steer .told button').click()")
    check("and the server is set back", page.wait("!document.querySelector('.steer .told').innerText.includes('The server adds')"), page.text(".steer"))
    page.eval("document.querySelectorAll('.steer header .choice button')[1].click()")
    page.eval("document.querySelector('.steer .run').click()")
    check("a direction from pairs of texts", page.wait("document.querySelectorAll('.vectors li').length === 2"), page.text(".steer"))
    check("line by line", len(asked(server, "/v1/steer/vector")[-1]["pairs"]) == 2, asked(server, "/v1/steer/vector")[-1])
    page.eval("document.querySelectorAll('.steer header .choice button')[0].click()")
    page.eval("(f => { f.value = 'two words'; f.form.requestSubmit(); })(document.querySelector('.steer input[name=from]'))")
    check("a mistake is a sentence in place", page.wait("document.querySelector('.steer .refused')?.innerText.includes('one is expected')"), page.text(".steer"))


def written(page, text, end="Enter"):
    """A label into the field that is open."""
    page.wait("document.activeElement.matches('.label-text')")
    page.write(text)
    page.key(end)


def check_labels(page, server):
    page.eval("document.querySelector('.rail button').click()")
    name = page.eval("[...document.querySelectorAll('.row button.name')].map(b => b.innerText).find(n => n.includes('N'))")
    page.eval(f"[...document.querySelectorAll('.row button.name')].find(b => b.innerText === '{name}').click()")
    page.wait(f"document.querySelector('.card-panel h2').innerText === 'Neuron {name}'")
    check("a card takes a label", page.eval("document.querySelector('#label').getAttribute('aria-label')") == f"Write a label for {name}")
    page.click(*place(page, ".card-panel h2"))
    check("a click on the name opens its field", page.eval("document.activeElement.getAttribute('aria-label')") == f"Label of {name}")
    page.write("rivers ?/l")
    page.key("Escape")
    check("Esc leaves it", page.text("#label") == "+ label" and not asked(server, "/v1/labels"), page.text(".card-panel header"))
    page.eval("document.activeElement.blur()")
    page.key("l")
    written(page, "rivers of France")
    check("L and Enter write it", page.wait("document.querySelector('#label')?.innerText === 'rivers of France'") and server.labels[-1]["part"] == name, server.labels)
    check("once", len(asked(server, "/v1/labels")) == 1, asked(server, "/v1/labels"))
    check("the keyboard is back at it", page.wait("document.activeElement.id === 'label'"))
    check("its bar has it", "rivers of France" in texts(page, ".row.open .tag"), texts(page, ".row.open"))
    page.key("Enter")
    written(page, "not <refuse> this")
    check("what the server refuses is a sentence in place", page.wait("document.querySelector('.card-panel header .refused')?.innerText.includes('is expected')"), page.text(".card-panel"))
    check("and nothing is lost", page.eval("document.querySelector('.label-text').value") == "not <refuse> this")
    page.key("Escape")
    check("but the sentence", page.wait("!document.querySelector('.card-panel .refused')") and page.text("#label") == "rivers of France")
    page.eval("document.querySelectorAll('.rail button')[3].click()")
    page.wait("!!document.querySelector('.search input') && !document.querySelector('.search.busy')")
    page.eval("document.querySelector('.search header .choice button').click()")
    page.eval("(f => { f.value = 'Paris'; f.form.requestSubmit(); })(document.querySelector('.search input'))")
    hit = page.wait("document.querySelector('.hits b')?.innerText")
    page.eval("document.querySelector('.hits button').click()")
    page.wait(f"document.querySelector('.card-panel h2').innerText.endsWith(' {hit}') && !!document.querySelector('#label')")
    page.eval("document.querySelector('#label').click()")
    written(page, "a hit")
    check("hits have theirs", page.wait("document.querySelector('.hits .tag')?.innerText === 'a hit'"), page.text(".hits"))
    page.key("Enter")
    written(page, "")
    check("an empty one takes it away", page.wait("!document.querySelector('.hits .tag')") and len(server.labels) == 2, server.labels)
    page.key("k", control=True)
    page.write("L20H4")
    page.key("Enter")
    check("another file's label says so", page.wait("document.querySelector('#label.foreign')?.title.includes('another')"), page.text(".card-panel header"))
    page.eval("document.querySelector('.rail button').click()")


def check_shelf(page, server):
    """Saved views, and labels as a file."""
    rows = lambda: texts(page, ".shelf form + .kept li")
    page.eval("document.activeElement.blur()")
    page.key("s")
    check("S opens what is kept", page.wait("!!document.querySelector('.shelf[open] form')"))
    check("a name is proposed", page.eval("document.querySelector('.shelf input[name=view]').value") == query(page)["prompt"][0][:60])
    here = query(page)
    page.eval("document.querySelector('.shelf input[name=view]').select()")
    page.write("Seine & co?")
    page.key("Enter")
    check("a view is saved", page.wait("!!document.querySelector('.shelf form + .kept button.open')") and "Seine & co?" in server.views, server.views)
    check("all that the address says", urllib.parse.parse_qs(server.views["Seine & co?"].lstrip("?")) == here, (server.views, here))
    check("the same name would replace it", page.wait("document.querySelector('.shelf .run').innerText === 'Replace'"))
    page.key("Escape")
    check("Esc closes it", page.wait("!document.querySelector('.shelf[open]')"))
    page.eval("document.querySelector('.rail button:nth-child(3)').click()")
    page.click(*grid_spot(page, 3, 20)) if page.eval("!!document.querySelector('.grid-box')") else page.key("ArrowLeft")
    moved = query(page)
    page.eval("document.querySelector('#saved-views').click()")
    page.wait("!!document.querySelector('.shelf[open] form + .kept button.open')")
    page.eval("document.querySelector('.shelf form + .kept button.open').click()")
    check("and opened", page.wait("!document.querySelector('.shelf[open]') && !!document.querySelector('.grid-panel')") and query(page) == here, (query(page), here))
    page.wait("document.querySelectorAll('.token.output').length > 0 && !document.querySelector('.busy')")
    page.eval("history.back()")
    check("a step back is the view before", page.wait("!!document.querySelector('.neurons')") and query(page) == moved, (query(page), moved))
    page.wait("document.querySelectorAll('.token.output').length > 0 && !document.querySelector('.busy')")
    page.eval("history.forward()")
    page.wait("!!document.querySelector('.grid-panel')")
    page.wait("document.querySelectorAll('.token.output').length > 0 && !document.querySelector('.busy')")
    page.eval("document.querySelector('#saved-views').click()")
    page.wait("!!document.querySelector('.shelf[open] form + .kept button.open')")
    page.eval("document.querySelector('.shelf button[aria-label=\"Delete Seine & co?\"]').click()")
    check("a view is deleted", page.wait("!!document.querySelector('.shelf s')") and not server.views, server.views)
    page.eval("document.querySelector('.shelf button[aria-label=\"Bring Seine & co? back\"]').click()")
    check("and comes back", page.wait("!document.querySelector('.shelf s')") and "Seine & co?" in server.views, rows())
    check("labels are listed", "rivers of France" in page.text(".shelf") and "capitals" in page.text(".shelf"), page.text(".shelf"))
    page.eval("""(() => { window.saved = []; const make = URL.createObjectURL; HTMLAnchorElement.prototype.click = function () {};
        URL.createObjectURL = blob => { blob.text().then(t => saved.push(t)); return make(blob); }; })()""")
    page.eval("[...document.querySelectorAll('.shelf button')].find(b => b.innerText === 'Export').click()")
    lines = page.wait("window.saved[0]")
    check("exported as lines", [json.loads(line) for line in lines.splitlines()] == server.labels, lines)
    give = """(text => { const field = document.querySelector('.shelf input[type=file]'), files = new DataTransfer();
        files.items.add(new File([text], 'labels.jsonl')); field.files = files.files; field.dispatchEvent(new Event('change', {bubbles: true})); })"""
    line = json.dumps({"part": "L1N2", "text": "imported", "time": 2})
    page.eval(f"{give}({json.dumps(line)})")
    check("and imported", page.wait("document.querySelector('.shelf').innerText.includes('imported')") and server.labels[-1]["part"] == "L1N2", server.labels)
    check("which is said", page.wait("document.querySelector('.shelf [role=status]').innerText === '1 label and 0 views read, 1 of them new here.'"), page.text(".shelf"))
    page.eval(f"{give}('{{}}')")
    check("a wrong file is a sentence in place", page.wait("document.querySelector('.shelf .refused')?.innerText.includes('line 1: part')"), page.text(".shelf"))
    check_named(page)
    page.eval("[...document.querySelectorAll('.shelf .kept button.open')].find(b => b.innerText === 'L1N2').click()")
    check("a label opens its part", page.wait("document.querySelector('.card-panel h2').innerText === 'Neuron L1N2' && document.querySelector('#label')?.innerText === 'imported'"), page.text(".card-panel"))


def check_addresses(browser, server):
    text = urllib.parse.quote_plus(EXAMPLE)
    page = opened(browser, f"{server.url}?prompt={text}&position=4&layer=7&tap=between&a=%22+Lyon%22&b=%22+the%22&edit=L12H3%3Azero&part=L12N345&theme=dark&seed=7&most=8",
                  ready="!!document.querySelector('.bars') && document.querySelectorAll('.token.output').length === 8")  # fmt: skip
    check("the cell of the address", page.wait("document.querySelector('.told').innerText.startsWith('between layer 7 at 4')"), page.text(".told"))
    check("A and B", page.wait("document.querySelectorAll('.field input')[1].value === '·the'") and page.eval("document.querySelector('.field input').value") == "·Lyon")
    check("its edits", texts(page, ".chip-name") == ["L12H3:zero"], texts(page, ".chip-name"))
    check("its part", page.wait("document.querySelector('.card-panel h2').innerText === 'Neuron L12N345'"))
    check("its theme", page.eval("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)")
    check("seed and length", asked(server, "/v1/edit")[-1]["seed"] == 7 and asked(server, "/v1/edit")[-1]["max_tokens"] == 8)
    before = page.eval("location.search")
    page.key("ArrowLeft")
    page.key("ArrowRight")
    time.sleep(0.3)
    check("reading changes nothing in it", sorted(before.split("&")) != [] and query(page)["layer"] == ["7"], query(page))
    page.eval("document.querySelector('.theme').click()")
    check("the theme can be switched", page.eval("getComputedStyle(document.body).backgroundColor") == "rgb(246, 246, 243)")
    check("and is kept", query(page).get("theme") == ["light"], query(page))
    server.vectors.clear()
    page = opened(browser, f"{server.url}?prompt={text}&view=steer&steer=%C2%B7Paris*12@3-9")
    check("a direction of an address is made again", page.wait("!!document.querySelector('.side.edited .apart')") and asked(server, "/v1/edit")[-1]["control_vectors"] == [{"id": 0, "scale": 12, "layers": [3, 9]}], asked(server, "/v1/edit")[-1])
    check("what it writes is told again", page.wait("document.querySelectorAll('.writes li').length === 29"), page.text(".steer"))
    page = opened(browser, f"{server.url}?prompt={text}&reading=edited&steer=%C2%B7Paris*12@3-9")
    check("and read under it", asked_for(server, "/v1/lens/prompt", lambda body: body.get("control_vectors") == [{"id": 0, "scale": 12, "layers": [3, 9]}]), asked(server, "/v1/lens/prompt")[-1])
    page = browser.page(width=1440, height=900)
    page.open(f"{server.url}?L=12&D=34")
    check("LM-Debugger's link opens the neuron", page.wait("document.querySelector('.card-panel h2')?.innerText === 'Neuron L12N34' && !!document.querySelector('.arithmetic')"), page.text(".card-panel"))


def check_exports(page):
    page.eval("""(() => { window.saved = []; HTMLAnchorElement.prototype.click = function () {
        const name = this.download; saved.push([name, this.href]); };
        const make = URL.createObjectURL; URL.createObjectURL = blob => { blob.text().then(t => saved.push(['text', t])); return make(blob); }; })()""")
    page.eval("[...document.querySelectorAll('.outs button')].filter(b => ['SVG', 'CSV', 'JSON'].includes(b.innerText)).forEach(b => b.click())")
    page.wait("saved.filter(s => s[0] === 'text').length === 3")
    svg, csv, whole = [s[1] for s in page.eval("saved.filter(s => s[0] === 'text')")]
    check("a picture", svg.startswith("<svg") and svg.count("<rect") > 30 * 12, svg[:100])
    rows = csv.strip().split("\n")
    check("a row for each cell", len(rows) == 1 + 30 * 32 and rows[0].startswith("position,token,tap,layer,top,probability"), (len(rows), rows[:2]))
    check("everything as JSON", {"model", "view", "text", "grid", "why", "run"} <= set(json.loads(whole)))


def check_saved(browser, server):
    """The view as a file: the same in it, without a server."""
    page = opened(browser, f"{server.url}?prompt={urllib.parse.quote_plus(EXAMPLE)}&layer=20&position=6")
    page.eval("document.querySelector('#label').click()")
    written(page, "kept")
    page.eval("document.querySelector('.bars .switch').click()")
    page.wait("document.querySelector('#label')?.innerText === 'kept' && !!document.querySelector('.side.edited .apart') && !!document.querySelector('.mark.good') && document.querySelectorAll('.token.output').length === 20")
    page.wait("!document.querySelector('.busy')")
    page.move(*place(page, ".token", 12))
    page.wait("document.querySelectorAll('.alternatives li').length === 10")
    page.move(700, 880)
    page.eval("document.querySelector('.rail button:nth-child(5)').click()")
    page.wait("document.querySelectorAll('.patch td button').length > 300 && !document.querySelector('.patch.busy')")
    page.eval("document.querySelector('.rail button').click()")
    page.eval("""(() => { HTMLAnchorElement.prototype.click = function () {}; const make = URL.createObjectURL;
        URL.createObjectURL = blob => { blob.text().then(t => { window.file = t; }); return make(blob); }; })()""")
    page.eval("[...document.querySelectorAll('.outs button')].find(b => b.innerText === 'HTML').click()")
    file = page.wait("window.file")
    check("one file, with its licences", file.startswith("<!DOCTYPE html>") and "MIT License" in file[-3000:], file[:200])
    parts = (".told", ".bars", ".account", ".snippets", ".side.base", ".side.edited", ".apart-line", ".facts", ".strip", ".chips")
    shown = {part: page.text(part) for part in parts}
    cells = "document.querySelector('.grid-canvas').toDataURL()"
    drawn = page.eval(cells)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "view.html"
        path.write_text(file)
        page = browser.page(width=1440, height=900)
        page.open(path)
        check("it comes to rest", page.wait(READY + " && !document.querySelector('.busy')"), page.text()[-300:])
        page.wait("document.querySelector('.told').innerText.includes('A rank') && !!document.querySelector('.mark.good')")
        again = {part: page.text(part) for part in parts}
        check("the same is told", again == shown, [(part, shown[part], again[part]) for part in parts if shown[part] != again[part]])
        check("the same cells are drawn", page.wait(f"{cells} === {json.dumps(drawn)}", 3))
        for what in ("#prompt:read-only", ".run:disabled", ".bars .switch:disabled", ".add-edit:disabled", ".goto:disabled", "#saved-views:disabled", "#prompt[title*='needs the model']", ".run[title*='needs the model']"):
            check(f"{what}: it needs the model", page.eval(f"!!document.querySelector({json.dumps(what)})"))
        check("labels are shown", page.text(".card-panel .tag") == "kept", page.text(".card-panel header"))
        check("and not written", not page.eval("!!document.querySelector('#label')"))
        page.key("ArrowDown")
        check("cells can be read", page.text(".told").startswith("after layer 19 at 6"), page.text(".told"))
        page.key("ArrowLeft")
        check("what was not asked is said to be missing", page.wait("document.querySelector('.why .refused')?.innerText.includes('as it was saved')"), page.text(".why"))
        page.key("ArrowRight")
        check("and what was is there", page.wait("!!document.querySelector('.bars') && !document.querySelector('.why .refused')"))
        page.move(*place(page, ".token", 12))
        check("alternatives that were seen", page.wait("document.querySelectorAll('.alternatives li').length === 10"), page.text(".popover"))
        page.eval("document.querySelector('.rail button:nth-child(5)').click()")
        check("views that were seen", page.wait("document.querySelectorAll('.patch td button').length > 300"), page.text(".centre"))
        check("others cannot be opened", page.eval("document.querySelector('.rail button:nth-child(2)').disabled"))
        check("no complaints", not page.complaints(), page.complaints())
        asked_for = [url for url in page.requests() if not url.startswith(("file:", "data:"))]
        check("no request leaves it", not asked_for and len([url for url in page.requests() if url.startswith("file:")]) == 1, page.requests())


def check_errors(browser, server):
    page = opened(browser, server.url)
    page.eval("document.querySelector('.add-edit').focus()")
    page.write("nonsense:nothing")
    page.key("Enter")
    check("a refused edit is a sentence in place", page.wait("document.querySelector('.compare .refused')?.innerText.includes('PART:OPERATION expected')"), page.text(".compare"))
    page.key("Escape")
    page.eval("document.querySelector('.chip button:last-child').click()")
    check("which goes with it", page.wait("!document.querySelector('.compare .refused')"), page.text(".compare"))
    page.eval("document.querySelectorAll('.field input')[0].select()")
    page.eval("document.querySelectorAll('.field input')[0].focus()")
    page.write("two words here")
    page.key("Enter")
    check("so is a token that is none", page.wait("document.querySelector('.why .refused')?.innerText.includes('one expected')"), page.text(".why"))
    quiet = [line for line in page.complaints() if "400" not in line]
    check("nothing else on the console", not quiet, quiet)
    server.checks = [{"name": "sums", "passed": False, "detail": "one layer sums to 1.2"}, {"name": "lens", "passed": None, "detail": "no room"}]
    page = opened(browser, server.url)
    check("a check that failed", page.wait("document.querySelector('.mark.bad')?.innerText.includes('1 of 2 checks failed')"), page.text(".mark"))
    server.checks = server.checks[1:]
    page = opened(browser, server.url)
    check("one that could not be run", page.wait("document.querySelector('.mark:not(.good, .bad)')?.innerText.includes('0 of 1 checks passed')"), page.text(".mark"))


def check_looks(browser, server):
    for width, height in ((1440, 900), (1024, 768), (390, 844)):
        for dark in (False, True):
            page = opened(browser, server.url, width=width, height=height, dark=dark)
            page.eval("document.querySelector('.bars .switch').click()")
            page.wait("!!document.querySelector('.side.edited .apart')")
            check_layout(page, width)
            for screen, shown in ((1, ".heads td button"), (2, ".layers li"), (3, ".hits li"), (5, ".vectors li"), (4, ".patch .words"), (6, ".parts li")):
                page.eval(f"document.querySelectorAll('.rail button')[{screen}].click()")
                page.wait(f"!!document.querySelector({json.dumps(shown)}) && !document.querySelector('.centre .busy')")
                check_layout(page, width)
            page.eval("document.querySelector('#saved-views').click()")
            page.wait("!!document.querySelector('.shelf[open] .kept li')")
            check(f"the list of what is kept fits {width} px", page.eval("""(d => { const r = d.getBoundingClientRect();
                return r.left >= 0 && r.right <= innerWidth && r.bottom <= innerHeight && d.scrollWidth <= d.clientWidth; })(document.querySelector('.shelf'))"""))
            page.key("Escape")
            page.eval("document.querySelectorAll('.rail button')[3].click()")
            for among in (2, 3):
                page.eval(f"document.querySelectorAll('.search > header .choice button')[{among}].click()")
                if among == 3:
                    page.eval("document.querySelector('.search form').requestSubmit()")
                page.wait("document.querySelectorAll('.hits').length === 2 && !document.querySelector('.centre .busy')")
                check_layout(page, width)
            check("no complaints", not page.complaints(), page.complaints())
            if width == 1440:
                out = page.eval("[...document.querySelectorAll('.panel, .foot')].filter(p => p.getBoundingClientRect().bottom > innerHeight).map(p => p.className)")
                check("all of it is in sight", not out, out)
    check_named(page)


def main():
    need_browser()
    with Mock() as server, Browser() as browser:
        page = opened(browser, server.url)
        check_first(page, server)
        check_exports(page)
        check_loop(page, server)
        check_parts(page, server)
        check_tokens(page, server)
        check_keys(page)
        check_screens(page, server)
        check_patch(page, server)
        check_diff(page, server)
        check_finder(page, server)
        check_search(page, server)
        check_steer(page, server)
        check_labels(page, server)
        check_shelf(page, server)
        loud = [line for line in page.complaints() if "400" not in line]  # of what was refused on purpose
        check("no complaints on the console", not loud, loud)
        others = [url for url in page.requests() if not url.startswith((server.url, "data:", "blob:"))]
        check("nothing is asked elsewhere", not others, others)
        for one in (check_search_text, check_clusters):
            one(page, server)
        check_addresses(browser, server)
        check_saved(browser, server)
        check_errors(browser, server)
        check_looks(browser, server)
    finish()


main()

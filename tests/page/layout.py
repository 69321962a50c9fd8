"""Where the parts of the debugger's page stand: nothing over anything else, nothing cut, a name for every control."""
from checks import check

# What may scroll or end in an ellipsis: it is whole in a title, or a scroll away.
OVERLAPS = """(() => {
    const seen = e => { const r = e.getBoundingClientRect(); return r.width > 0 && r.height > 0 && getComputedStyle(e).visibility !== 'hidden'; };
    const name = e => (e.className || e.tagName) + ' "' + (e.innerText || '').slice(0, 20) + '"';
    const groups = [[...document.querySelectorAll('.top, .rail, .ask, .panel, .foot')],
        ...['.top', '.rail', '.settings', '.panel > header', '.fields', '.outs', '.foot', '.chips', '.sides', '.apart-line', '.ask', '.strip-row']
            .flatMap(s => [...document.querySelectorAll(s)].map(e => [...e.children])),
        ...[...document.querySelectorAll('.row, .snippets button, .panel')].map(e => [...e.children])];
    const found = [];
    for (const group of groups) {
        const boxes = group.filter(e => seen(e) && getComputedStyle(e).position !== 'fixed').map(e => [e, e.getBoundingClientRect()]);
        for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
            const [a, b] = [boxes[i], boxes[j]];
            const w = Math.min(a[1].right, b[1].right) - Math.max(a[1].left, b[1].left);
            const h = Math.min(a[1].bottom, b[1].bottom) - Math.max(a[1].top, b[1].top);
            if (w > 1 && h > 1) found.push(name(a[0]) + ' over ' + name(b[0]));
        }
    }
    return found;
})()"""

CUT = """(() => {
    const scrolls = '.grid-box, .strip, .card-body, .side, .matrix-box, .prompt-box';
    const short = '.cut, .said, .told, .snippet, .facts dd, .why header .quiet';
    const found = [];
    for (const e of document.querySelectorAll('.app *')) {
        if (e.closest(scrolls) && !e.matches(scrolls) || e.closest(short) || e.closest('svg, option, datalist, dialog')) continue;
        const r = e.getBoundingClientRect(), style = getComputedStyle(e);
        if (!r.width || !r.height || e.classList.contains('unseen')) continue;
        const what = (e.className || e.tagName) + ' "' + (e.innerText || e.value || '').slice(0, 30) + '"';
        if (r.left < -1 || r.right > innerWidth + 1) found.push('beside the page: ' + what);
        if (style.overflow !== 'visible' && !e.matches(scrolls) && !e.matches('input, textarea') && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1))
            found.push('cut: ' + what);
        const panel = e.closest('.panel');
        if (panel && e !== panel && r.bottom > panel.getBoundingClientRect().bottom + 1) found.push('below its panel: ' + what);
    }
    return found;
})()"""

NAMELESS = """[...document.querySelectorAll('button, input, textarea, [tabindex="0"]')].filter(e =>
    !(e.getAttribute('aria-label') || e.innerText?.trim() || e.labels?.length || e.title)).map(e => e.outerHTML.slice(0, 100))"""


def check_layout(page, width):
    page.settle()
    wide = page.eval("document.documentElement.scrollWidth")
    check(f"nothing beside the page at {width} px", wide <= width, wide)
    over = page.eval(OVERLAPS)
    check(f"nothing over anything else at {width} px", not over, over[:5])
    cut = page.eval(CUT)
    check(f"nothing cut at {width} px", not cut, cut[:5])


def check_named(page):
    nameless = page.eval(NAMELESS)
    check("every control has a name", not nameless, nameless[:5])

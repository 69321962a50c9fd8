"""What the tests of pages check alike, and the count of checks.

    check("the machine", "Abacus" in text, text)
    finish()
"""
import re
import sys

counted = {"checks": 0, "failed": 0}


def check(what, good, found=""):
    counted["checks"] += 1
    if not good:
        counted["failed"] += 1
        print(f"FAILED: {what} {found}")


def check_quiet(page):
    """Nothing on the console, nothing from anywhere else."""
    check("no complaints on the console", not page.complaints(), page.complaints())
    others = [url for url in page.requests() if not url.startswith(("file:", "data:"))]
    check("nothing is requested", not others and len(page.requests()) <= 2, page.requests())


def check_looks(browser, path):
    """A phone and a desktop, both dark: nothing beside the page, no name beside its picture."""
    for width in (390, 1280):
        page = browser.page(width=width, dark=True)
        page.open(path)
        wide = page.eval("document.documentElement.scrollWidth")
        check(f"nothing sticks out at {width} px of {path}", wide <= width, wide)
        out = page.eval("""[...document.querySelectorAll('figure svg.curves')].flatMap(svg => {
            const right = svg.closest('figure').getBoundingClientRect().right;
            return [...svg.querySelectorAll('text')].filter(t => t.getBoundingClientRect().right > right + 1).map(t => t.textContent);
        })""")
        check(f"names end inside their picture at {width} px", not out, out)
        ground = page.eval("getComputedStyle(document.body).backgroundColor")
        check("dark is dark", max(map(int, re.findall(r"\d+", ground)[:3])) < 64, ground)
        check("no complaints", not page.complaints(), page.complaints())


def finish():
    print(f"{counted['checks']} checks, {counted['failed']} failed")
    sys.exit(counted["failed"] > 0)

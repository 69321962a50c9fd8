# not under: address|undefined|thread
# runs alone
"""A text of 4,096 tokens in the debugger's page: how soon it is seen, and the longest frame while it is scrolled. The
server has made-up numbers, so that the time is the page's."""
import sys
import time

sys.path.insert(0, "tests/page")
from browser import Browser, need_browser  # noqa: E402
from checks import check, finish  # noqa: E402
from mock_debugger import Mock, long_text  # noqa: E402

PAINTED = "!!document.querySelector('.told') && /nats/.test(document.querySelector('.told').innerText)"

# Scrolls by some columns each frame, there and back, and says how long each frame was, in milliseconds.
SCROLL = """new Promise(done => {
    const box = document.querySelector('.grid-box'), frames = [];
    let last = 0, left = 180, step = -310;
    const next = now => {
        if (last) frames.push(now - last);
        last = now;
        if (box.scrollLeft < 400) step = 310;
        box.scrollLeft += step;
        if (--left) requestAnimationFrame(next);
        else done(frames);
    };
    requestAnimationFrame(next);
})"""


def main():
    need_browser()
    with Mock(example=long_text(4096)) as server, Browser() as browser:
        # The best of some: another process may take the machine for a moment.
        took = []
        while len(took) < 3 and (not took or min(took) >= 3):
            page = browser.page(width=1440, height=900)
            start = time.time()
            page.open(server.url)
            check("cells are seen", page.wait(PAINTED), page.text()[-300:])
            took.append(time.time() - start)
        seconds = min(took)
        print(f"cells of 4,096 tokens after {seconds:.2f} s")
        check("in less than 3 s", seconds < 3, seconds)
        page.wait("document.querySelectorAll('.token.output').length > 0 && !document.querySelector('.busy')")
        longest = []
        for _ in range(3):
            longest.append(max(page.eval(SCROLL)))
            if longest[-1] < 100:
                break
        print(f"longest frame while scrolling: {min(longest):.0f} ms")
        check("no frame of 100 ms", min(longest) < 100, longest)
        page.wait("new Promise(done => setTimeout(() => done(1), 500))")
        windows = [body for path, body in server.asked if path == "/v1/lens/prompt" and len(body.get("taps", [])) == 1]
        check("what is asked for is a window", all(body["count"] <= 32 for body in windows), [body["count"] for body in windows])
        check("not the whole text", sum(body["count"] for body in windows) < 2000, sum(body["count"] for body in windows))
        check("what came to rest is filled in", page.wait("/nats/.test(document.querySelector('.told').innerText)"))
        check("no complaints", not page.complaints(), page.complaints())
    finish()


main()

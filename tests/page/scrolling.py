"""How soon the page shows the cells of a long text, and how smoothly it scrolls."""
import math
import time

PAINTED = "!!document.querySelector('.told') && /nats/.test(document.querySelector('.told').innerText)"
SKETCHED = "document.querySelectorAll('.token').length >= 4096 && !!document.querySelector('.told')"

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


def in_sight_after(page, address):
    """Opens the page: seconds until the text's tokens and the columns of the grid are painted, with cells or without."""
    start = time.time()
    page.open(address)
    return time.time() - start if page.wait(SKETCHED) else math.inf


def painted_after(page, start, patience=20):
    """Seconds since `start` until the cells in view are painted."""
    return time.time() - start if page.wait(PAINTED, patience) else math.inf


def longest_frame(page):
    """Of some seconds of scrolling, in seconds."""
    return max(page.eval(SCROLL)) / 1000

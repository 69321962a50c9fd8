"""Debian's Chromium without a window, driven by Playwright: what the tests of pages do with it, in their words.

    with Browser() as browser:
        page = browser.page(width=390, dark=True)
        page.open("/tmp/report.html")
        page.eval("document.title")

By hand, to look at a page: python3 tests/page/browser.py PAGE.html [--width N] [--dark] -o PICTURE.png
"""
import argparse
import json
import os
import pathlib
import shutil
import sys
import time

sys.path.append(os.environ.get("KEYHOLE_PYTHON", os.path.expanduser("~/.cache/keyhole/python")))
try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

LIMIT = 60_000  # milliseconds that opening a page or a picture may take


def chromium():
    """The program, or None."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    return None


def missing():
    """What is not there, as a sentence; "" where a browser can be driven."""
    what = "chromium" if not chromium() else "the package playwright" if not sync_playwright else ""
    return what and f"{what} is missing (scripts/setup --page installs it)"


def need_browser():
    """Ends the test as skipped (or failed, where browsers are promised) if there is none, or nothing to drive it with."""
    if missing():
        print(f"skipped: {missing()}")
        sys.exit(1 if os.environ.get("KEYHOLE_REQUIRE_BROWSER") == "1" else 77)


class Browser:
    def __enter__(self):
        self.playwright = sync_playwright().start()
        flags = ["--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"]
        self.process = self.playwright.chromium.launch(executable_path=chromium(), args=flags)
        self.context = self.process.new_context()
        return self

    def __exit__(self, *_):
        self.process.close()
        self.playwright.stop()

    def page(self, **how):
        return Page(self.context, **how)


class Page:
    def __init__(self, context, width=1280, height=900, dark=False):
        self.of = context.new_page()
        self.of.set_default_timeout(LIMIT)
        self.of.set_viewport_size({"width": width, "height": height})
        self.of.emulate_media(color_scheme="dark" if dark else "light")
        self.said, self.asked = [], []
        self.of.on("pageerror", lambda error: self.said.append(str(error)))
        self.of.on("console", lambda line: self.said.append(line.text) if line.type in ("error", "warning") else None)
        self.of.on("request", lambda request: self.asked.append(request.url))

    def open(self, path):
        """A file, or an address; again, as another visitor."""
        self.of.goto(path if str(path).startswith("http:") else pathlib.Path(path).resolve().as_uri())
        self.settle()

    def settle(self):
        """Two frames later."""
        self.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def eval(self, expression):
        return self.of.evaluate(expression)

    def text(self, selector="body"):
        """What a reader sees, with plain spaces."""
        return self.eval(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''").replace("\xa0", " ")

    def key(self, name, control=False):
        self.of.keyboard.press(f"Control+{name}" if control else name)
        self.settle()

    def write(self, text):
        """Into what has the focus."""
        self.of.keyboard.insert_text(text)
        self.settle()

    def click(self, x, y):
        self.of.mouse.click(x, y)
        self.settle()

    def move(self, x, y):
        self.of.mouse.move(x, y)
        self.settle()

    def wait(self, expression, seconds=20):
        """Until the expression is true; what it was at the end."""
        end = time.time() + seconds
        while True:
            found = self.eval(expression)
            if found or time.time() > end:
                return found
            time.sleep(0.03)

    def complaints(self):
        """Exceptions, errors and warnings of the console."""
        return self.said

    def requests(self):
        return self.asked

    def picture(self, path, whole=True):
        self.of.screenshot(path=path, full_page=whole)


def main():
    parser = argparse.ArgumentParser(description="takes a picture of a page")
    parser.add_argument("page")
    parser.add_argument("-o", dest="out", required=True)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--dark", action="store_true")
    given = parser.parse_args()
    need_browser()
    with Browser() as browser:
        page = browser.page(width=given.width, dark=given.dark)
        page.open(given.page)
        page.picture(given.out)
        for line in page.complaints():
            print(line)


if __name__ == "__main__":
    main()

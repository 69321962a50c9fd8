"""Debian's Chromium without a window, spoken to over its debugging pipe: nothing but Python is needed.

    with Browser() as browser:
        page = browser.page(width=390, dark=True)
        page.open("/tmp/report.html")
        page.eval("document.title")

By hand, to look at a page: python3 tests/page/browser.py PAGE.html [--width N] [--dark] -o PICTURE.png
"""
import argparse
import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

LIMIT = 60  # seconds that any one answer may take


def chromium():
    """The program, or None."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    return None


def need_browser():
    """Ends the test as skipped (or failed, where browsers are promised) if there is none."""
    if not chromium():
        print("skipped: chromium is missing (scripts/setup --page installs it)")
        sys.exit(1 if os.environ.get("KEYHOLE_REQUIRE_BROWSER") == "1" else 77)


class Browser:
    def __init__(self):
        self.home = tempfile.mkdtemp(prefix="keyhole-browser-")
        child_in, self.into = os.pipe()
        self.out, child_out = os.pipe()
        # Above 4, so that putting them at 3 and 4 overwrites neither.
        read, write = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (child_in, child_out))
        os.close(child_in)
        os.close(child_out)

        def inherit():
            os.dup2(read, 3)
            os.dup2(write, 4)

        self.process = subprocess.Popen(
            [chromium(), "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars",
             "--force-color-profile=srgb", f"--user-data-dir={self.home}", "about:blank"],
            preexec_fn=inherit, pass_fds=(3, 4), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(read)
        os.close(write)
        self.number, self.rest, self.events = 0, b"", []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def call(self, method, session=None, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.into, json.dumps(message).encode() + b"\0")
        answer = self.until(lambda m: m.get("id") == self.number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def until(self, wanted):
        """The next message that is wanted; events on the way are kept."""
        end = time.time() + LIMIT
        while True:
            while b"\0" not in self.rest:
                if not select.select([self.out], [], [], max(0, end - time.time()))[0]:
                    raise RuntimeError("the browser does not answer")
                more = os.read(self.out, 1 << 16)
                if not more:
                    raise RuntimeError("the browser ended")
                self.rest += more
            line, self.rest = self.rest.split(b"\0", 1)
            message = json.loads(line)
            if "id" not in message:
                self.events.append(message)
            if wanted(message):
                return message

    def page(self, **how):
        return Page(self, **how)


class Page:
    def __init__(self, browser, width=1280, height=900, dark=False):
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def of_me(self, *methods):
        return [e["params"] for e in self.browser.events if e.get("sessionId") == self.session and e["method"] in methods]

    def open(self, path):
        """A file, or an address; again, as another visitor."""
        self.browser.events = [e for e in self.browser.events if e["method"] != "Page.loadEventFired"]
        address = path if str(path).startswith("http:") else pathlib.Path(path).resolve().as_uri()
        self.call("Page.navigate", url=address)
        if not self.of_me("Page.loadEventFired"):
            self.browser.until(lambda m: m.get("method") == "Page.loadEventFired" and m.get("sessionId") == self.session)
        self.settle()

    def settle(self):
        """Two frames later."""
        self.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def eval(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "exception"))
        return answer["result"].get("value")

    def text(self, selector="body"):
        """What a reader sees, with plain spaces."""
        return self.eval(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''").replace("\xa0", " ")

    def key(self, name, control=False):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, modifiers=2 if control else 0)
        self.settle()

    def write(self, text):
        """Into what has the focus."""
        self.call("Input.insertText", text=text)
        self.settle()

    def click(self, x, y):
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def wait(self, expression, seconds=20):
        """Until the expression is true; what it was at the end."""
        end = time.time() + seconds
        while True:
            found = self.eval(expression)
            if found or time.time() > end:
                return found
            time.sleep(0.03)

    def move(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settle()

    def complaints(self):
        """Exceptions, errors and warnings of the console."""
        found = [e["exceptionDetails"].get("exception", {}).get("description", "exception")
                 for e in self.of_me("Runtime.exceptionThrown")]  # fmt: skip
        found += [str(e["args"]) for e in self.of_me("Runtime.consoleAPICalled") if e["type"] in ("error", "warning")]
        return found + [e["entry"]["text"] for e in self.of_me("Log.entryAdded") if e["entry"]["level"] in ("error", "warning")]

    def requests(self):
        return [e["request"]["url"] for e in self.of_me("Network.requestWillBeSent")]

    def picture(self, path, whole=True):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))


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
        height = page.eval("document.documentElement.scrollHeight")
        page.call("Emulation.setDeviceMetricsOverride", width=given.width, height=height, deviceScaleFactor=1, mobile=False)
        page.settle()
        page.picture(given.out)
        for line in page.complaints():
            print(line)


if __name__ == "__main__":
    main()

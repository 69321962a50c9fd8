"""The program on a terminal: chat with its prompt, Ctrl-C, progress, and the bare form."""
import os
import pty
import select
import signal
import sys
import time

KEYHOLE = os.environ["KEYHOLE"]
TINY = "tests/golden/tiny/llama.gguf"
LIMIT = 60
failed = 0

try:
    for end in os.openpty():
        os.close(end)
except OSError as e:
    print(f"skipped: there are no pseudo-terminals ({e.strerror})")
    sys.exit(77)


def check(what, good):
    global failed
    if not good:
        failed += 1
        print("FAILED:", what)


class Terminal:
    """A program that believes in a terminal; everything it prints is in .text."""

    def __init__(self, *command, **environment):
        self.text = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(environment)
            os.execv(command[0], command)

    def wait_for(self, part, start=0):
        end = time.time() + LIMIT
        while part not in self.text[start:]:
            if time.time() > end or not self.read(end - time.time()):
                break
        check(f"'{part}' appears, found {self.text[start:][-300:]!r}", part in self.text[start:])

    def read(self, seconds):
        """False at the end of what it will ever print."""
        ready, _, _ = select.select([self.fd], [], [], max(seconds, 0))
        if not ready:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other side is gone
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def type(self, text):
        os.write(self.fd, text.encode())
        return len(self.text)

    def exit_code(self):
        end = time.time() + LIMIT
        while time.time() < end and self.read(0.5):
            pass
        while time.time() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        os.kill(self.pid, signal.SIGKILL)
        return "no end"


# A conversation: an endless answer, stopped by Ctrl-C; the next prompt; the commands; the end.
forever = ["--chat-template", "chatml", "--ignore-eos", "--ctx-shift"]
t = Terminal(KEYHOLE, "chat", TINY, *forever)
t.wait_for("> ")
start = t.type("a\n")
t.wait_for("\n", start)
time.sleep(0.5)
start = t.type("\x03")
t.wait_for("(stopped", start)
t.wait_for("> ", start)
start = t.type("/help\n")
t.wait_for("/system TEXT", start)
start = t.type("b\\\n")
t.wait_for(". ", start)
start = t.type("\x03")
check("Ctrl-C at the prompt leaves with 130", t.exit_code() == 130)

t = Terminal(KEYHOLE, "chat", TINY, "--chat-template", "chatml", "-n", "3")
t.wait_for("> ")
t.type("/quit\n")
check("/quit leaves with 0", t.exit_code() == 0)
t = Terminal(KEYHOLE, "chat", TINY, "--chat-template", "chatml", "-n", "3")
t.wait_for("> ")
t.type("\x04")
check("the end of the input leaves with 0", t.exit_code() == 0)

# A model file alone is served.
t = Terminal(KEYHOLE, TINY, LLAMA_ARG_PORT="0")
t.wait_for("http://127.0.0.1:")
t.type("\x03")
check("the bare form leaves with 0", t.exit_code() == 0)

# An empty prompt on a terminal does not wait for somebody to type.
t = Terminal(KEYHOLE, "run", TINY)
check("no prompt: exit 2", t.exit_code() == 2)
check("and a sentence", "the text is empty" in t.text)

# Long work shows what is done; --quiet does not.
ppl = [KEYHOLE, "ppl", TINY, "-f", "examples/persuasion.txt", "-c", "128", "--chunks", "600"]
t = Terminal(*ppl)
check("ppl ends well", t.exit_code() == 0)
check("with a bar", "#" in t.text and "/s" in t.text)
check("that is wiped away", t.text.rstrip().splitlines()[-1].startswith("full"))
t = Terminal(*ppl, "--quiet")
t.exit_code()
check("--quiet shows none", "#" not in t.text)

print(f"{failed} failed")
sys.exit(failed > 0)

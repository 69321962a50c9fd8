"""keyhole serve and its clients: many, slow ones, those that leave; and how it ends.

KEYHOLE_CLIENTS and KEYHOLE_SECONDS ask for the long version (test_load.py).
"""

import http.client
import json
import os
import signal
import socket
import statistics
import threading
import time

from serving import TINY, Server, check, finish

CLIENTS = int(os.environ.get("KEYHOLE_CLIENTS", "8"))
SECONDS = float(os.environ.get("KEYHOLE_SECONDS", "4"))
LONG = {"prompt": "hello", "max_tokens": 100000, "temperature": 0, "ignore_eos": True}
ENDLESS = ["-c", "1000000", "--longer"]
SMALL = 4096  # bytes of a slow client's socket


def open_stream(server, body, buffer=None):
    """A socket that asked for a stream and has read its head."""
    s = socket.socket()
    if buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    s.settimeout(30)
    s.connect((server.host, server.port))
    text = json.dumps({**body, "stream": True}).encode()
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
    head = s.recv(200)
    check("a stream begins", head.startswith(b"HTTP/1.1 200"), head)
    return s


def those_who_leave(server):
    for _ in range(3):
        streams = [open_stream(server, LONG) for _ in range(3)]
        for s in streams:
            s.close()
        check("streams that are left end", server.wait_idle(10))
    cancelled = server.metric("requests_cancelled_total")
    check("and are counted", cancelled >= 9, cancelled)
    for _ in range(3):
        connection = server.connection()
        connection.request("POST", "/v1/completions", json.dumps(LONG))
        time.sleep(0.1)
        connection.close()
    check("so do answers that are whole", server.wait_idle(10))
    # in the queue: the slots are taken, the one that leaves was never begun
    streams = [open_stream(server, LONG) for _ in range(4)]
    connection = server.connection()
    connection.request("POST", "/v1/completions", json.dumps(LONG))
    time.sleep(0.3)
    check("one waits", server.metric("requests_deferred") == 1)
    connection.close()
    end = time.time() + 10
    while server.metric("requests_deferred") and time.time() < end:
        time.sleep(0.05)
    check("and leaves the queue", server.metric("requests_deferred") == 0)
    for s in streams:
        s.close()
    check("nobody is left", server.wait_idle(10))


def slow_ones(server):
    """Three that do not read hold nobody, and are cancelled."""
    streams = [open_stream(server, {**LONG, "logprobs": 20}, SMALL) for _ in range(3)]
    time.sleep(1)
    start = time.time()
    status, answer = server.post("/v1/completions", {"prompt": "x", "max_tokens": 20, "temperature": 0})
    check("another is answered meanwhile", status == 200 and time.time() - start < 10, time.time() - start)
    check("they are cancelled in the end", server.wait_idle(40))
    for s in streams:
        s.close()


def a_full_queue():
    with Server(TINY, *ENDLESS, "-np", "1") as server:
        streams = [open_stream(server, LONG)]
        statuses, waiting = [], []
        for _ in range(80):
            connection = server.connection()
            connection.request("POST", "/v1/completions", json.dumps(LONG))
            waiting.append(connection)
        time.sleep(0.5)
        connection = server.connection()
        connection.request("POST", "/v1/completions", json.dumps(LONG))
        answer = connection.getresponse()
        statuses.append(answer.status)
        check("a full queue says 429", answer.status == 429 and answer.headers["Retry-After"], answer.status)
        check("in a sentence", "waiting" in json.loads(answer.read())["error"]["message"])
        check("and is bounded", server.metric("requests_deferred") <= 64)
        check("what needs no slot is answered", server.post("/tokenize", {"content": "x"})[0] == 200)
        for c in [*waiting, *streams]:
            c.close()
        check("they all leave", server.wait_idle(20))


def flat(sizes):
    """Behind a warm-up of a quarter (every slot and buffer has been used), resident memory: the trend of a line through all
    samples, because a leak is a trend; and the highest moment of each half, because what is kept of the busiest moment and given
    back only later would hide in a median."""
    steady = sizes[len(sizes) // 4 :]
    trend = statistics.linear_regression(range(len(steady)), steady).slope * len(steady) / statistics.mean(steady)
    early, late = max(steady[: len(steady) // 2]), max(steady[len(steady) // 2 :])
    print(f"resident after the warm-up {min(steady)} to {max(steady)} kB, trend {trend:+.2%}, highest {early} then {late} kB")
    check("memory has no trend of more than 2 %", abs(trend) <= 0.02, trend, sizes)
    check("nor a highest moment that rises by more", late <= early * 1.02, early, late, sizes)


def many(server):
    """Answers of many at once are what they are alone."""
    alone = {}
    prompts = [f"{'hello ' * (1 + i % 7)}{i % 10}" for i in range(20)]
    body = {"max_tokens": 12, "temperature": 0, "ignore_eos": True}
    for prompt in prompts:
        alone[prompt] = server.post("/v1/completions", {"prompt": prompt, **body})[1]["choices"][0]["text"]
    counts, lock, wrong = {}, threading.Lock(), []
    until = time.time() + SECONDS

    def client(n):
        i = n
        while time.time() < until:
            prompt = prompts[i % len(prompts)]
            i += 1
            try:
                if i % 11 == 0:
                    s = open_stream(server, {"prompt": prompt, **body})
                    s.close()  # rude
                    continue
                if i % 3 == 0:
                    events = server.request("POST", "/v1/completions", {"prompt": prompt, **body, "stream": True})
                    status = events[0]
                    lines = [x[6:] for x in events[2].decode().split("\n\n") if x.startswith("data: {")]
                    text = "".join(json.loads(x)["choices"][0]["text"] for x in lines) if status == 200 else None
                else:
                    status, answer = server.post("/v1/completions", {"prompt": prompt, **body})
                    text = answer["choices"][0]["text"] if status == 200 else None
            except (OSError, http.client.HTTPException, ValueError) as error:
                status, text = repr(error), None
            with lock:
                counts[status] = counts.get(status, 0) + 1
                if status == 200 and text != alone[prompt]:
                    wrong.append((prompt, text, alone[prompt]))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    for t in threads:
        t.start()
    sizes = []
    while any(t.is_alive() for t in threads):
        time.sleep(min(1, SECONDS / 10))
        sizes.append(server.memory())
    check("200, or an honest 429 or 503", set(counts) <= {200, 429, 503} and counts.get(200, 0) > CLIENTS, counts)
    check("everyone's answer is their own", not wrong, wrong[:3])
    print(f"{CLIENTS} clients, {SECONDS:g} s: {counts}, resident {sizes[len(sizes) // 4]} to {sizes[-1]} kB")
    if SECONDS >= 60:
        flat(sizes)
    check("nobody is left", server.wait_idle(30))


def ends():
    for number, patient in [(signal.SIGINT, True), (signal.SIGTERM, False)]:
        with Server(TINY, *ENDLESS, "--timeout", "5") as server:
            stream = open_stream(server, {**LONG, "max_tokens": 300} if patient else LONG)
            start = time.time()
            server.process.send_signal(number)
            code = server.process.wait(30)
            check("it ends with 0, soon", code == 0 and time.time() - start < 12, code, time.time() - start)
            data = b""
            while more := stream.recv(1 << 16):
                data += more
            if patient:
                check("a short answer is finished", data.count(b"data: {") > 100 and b"[DONE]" in data, data[-300:])
            else:
                check("an endless one is cut, and says so", b"about to end" in data[-2000:], data[-300:])
    with Server(TINY, *ENDLESS) as server:
        stream = open_stream(server, LONG)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        start = time.time()
        server.process.send_signal(signal.SIGINT)
        check("the second signal ends at once", server.process.wait(5) == 130 and time.time() - start < 2)
        stream.close()


def quiet_ones():
    """A connection that says nothing is closed after the time-out; a long wait for an answer is not."""
    with Server(TINY, *ENDLESS, "-np", "1", "--timeout", "1") as server:
        with socket.create_connection((server.host, server.port), 20) as s:
            s.sendall(b"GET /health HT")
            start = time.time()
            check("half a request is closed", s.recv(1000) == b"" and time.time() - start < 10, time.time() - start)
        with socket.create_connection((server.host, server.port), 20) as s:
            start, closed = time.time(), False
            s.sendall(b"GET /health HTTP/1.1\r\nX: ")
            s.settimeout(0.2)
            while not closed and time.time() - start < 20:
                try:
                    s.sendall(b"y")
                    closed = s.recv(1000) == b""
                except TimeoutError:
                    pass
                except OSError:
                    closed = True
            check("so is one that drips", closed and time.time() - start < 15, time.time() - start)
        stream = open_stream(server, LONG)
        result = []
        thread = threading.Thread(target=lambda: result.append(server.post("/v1/completions", {"prompt": "x", "max_tokens": 2})))
        thread.start()
        start = time.time()
        while time.time() - start < 4:
            stream.recv(1 << 20)
        stream.close()
        thread.join(20)
        check("waiting for a slot is no time-out", result and result[0][0] == 200, result)


with Server(TINY, *ENDLESS, "-np", "4") as main:
    those_who_leave(main)
    slow_ones(main)
    many(main)
    check("it ends well", main.end() == 0)
if CLIENTS <= 8:
    a_full_queue()
    quiet_ones()
    ends()
finish()

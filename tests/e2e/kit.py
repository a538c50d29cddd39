"""What the tests stand on: child processes, free ports, TOML, HTTP by hand, server-sent events."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = pathlib.Path(os.environ.get("WITGATE_CACHE") or ROOT / ".cache")

# Slack for the scheduler, where a test measures a short time on a machine that does other things too.
# What a test tells apart by a time takes longer than this otherwise, or for ever.
SLACK = float(os.environ.get("WITGATE_E2E_SLACK", "3"))


def free_port():
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(condition, timeout=30.0, what="the condition", every=0.01):
    """The condition's first true value. Fails when it does not come."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain for {what}")
        time.sleep(every)


def tries(check, count=5):
    """Runs a check until it passes, where a machine that stalls for a moment may spoil it: what is wrong is wrong each time."""
    for left in reversed(range(count)):
        try:
            return check()
        except AssertionError:
            if not left:
                raise


class Process:
    """A child in a process group of its own, its output in files; gone for certain after `stop`."""

    def __init__(self, command, folder, name, env=None, cwd=None):
        self.name = name
        self.command = [str(c) for c in command]
        self.stdout = pathlib.Path(folder) / f"{name}.stdout"
        self.stderr = pathlib.Path(folder) / f"{name}.stderr"
        with open(self.stdout, "ab") as out, open(self.stderr, "ab") as err:
            self.child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child.poll() is None

    def output(self):
        """All that it wrote so far, for messages."""
        return self.stdout.read_text(errors="replace") + self.stderr.read_text(errors="replace")

    def signal(self, number):
        os.kill(self.child.pid, number)

    def wait(self, timeout):
        return self.child.wait(timeout)

    def kill(self):
        """Ends the whole group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def stop(self, timeout=3.0):
        """Asks it to end, then ends it, children included."""
        if self.alive():
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(timeout)
        self.kill()

    def wait_listening(self, port, timeout=120.0, path="/health", statuses=(200,)):
        """Waits until the path answers with one of the statuses."""

        def up():
            if not self.alive():
                raise AssertionError(f"{self.name} ended with {self.child.returncode}:\n{self.output()[-4000:]}")
            try:
                return http("GET", f"http://127.0.0.1:{port}{path}", timeout=2).status in statuses
            except OSError:
                return False

        wait_until(up, timeout, f"{self.name} to answer on port {port}; its output:\n{self.output()[-4000:]}")


def toml(value, prefix=()):
    """A dictionary as TOML text. Tables are nested dictionaries; None is left out."""
    lines, tables = [], []
    for key, item in value.items():
        if item is None:
            continue
        name = key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else json.dumps(key)
        if isinstance(item, dict):
            tables.append(f"\n[{'.'.join((*prefix, name))}]\n{toml(item, (*prefix, name))}")
        else:
            lines.append(f"{name} = {inline(item)}\n")
    return "".join(lines + tables)


def inline(item):
    """A TOML value on one line."""
    if isinstance(item, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {inline(v)}" for k, v in item.items()) + " }"
    if isinstance(item, list):
        return "[" + ", ".join(inline(i) for i in item) + "]"
    return json.dumps(item)


@dataclasses.dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The `error` object."""
        return self.json()["error"]

    @property
    def text(self):
        return self.body.decode()


class Wire:
    """One HTTP/1.1 connection by hand: to see exact bytes, and to leave whenever a test wants to."""

    def __init__(self, url, timeout=30.0):
        self.host, _, port = url.removeprefix("http://").split("/")[0].partition(":")
        self.socket = socket.create_connection((self.host, int(port)), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, method, path, headers=None, body=None):
        head = {"host": self.host}
        if body is not None:
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
            head |= {"content-type": "application/json", "content-length": str(len(body))}
        head |= {k.lower(): v for k, v in (headers or {}).items() if v is not None}
        text = "".join(f"{k}: {v}\r\n" for k, v in head.items())
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode() + (body or b""))

    def more(self):
        piece = self.socket.recv(65536)
        self.buffer += piece
        return piece

    def until(self, mark):
        """The bytes before `mark`, which is taken too."""
        while mark not in self.buffer:
            if not self.more():
                raise ConnectionError(f"the connection ended before {mark!r}: {self.buffer[-500:]!r}")
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    def exactly(self, count):
        while len(self.buffer) < count:
            if not self.more():
                raise ConnectionError(f"the connection ended {count - len(self.buffer)} bytes early")
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def head(self):
        """Status and headers, names in lower case."""
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        return self.status, self.headers

    def pieces(self):
        """The body, in the pieces that the peer sent."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int(self.until(b"\r\n").split(b";")[0], 16):
                yield self.exactly(size)
                self.exactly(2)
            self.until(b"\r\n")
        elif "content-length" in self.headers:
            yield self.exactly(int(self.headers["content-length"]))
        elif self.status not in (204, 304):
            yield self.buffer
            while piece := self.socket.recv(65536):
                yield piece

    def answer(self, method="POST"):
        status, headers = self.head()
        return Answer(status, headers, b"" if method == "HEAD" else b"".join(self.pieces()))

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def http(method, url, body=None, headers=None, timeout=30.0):
    """One request on a connection of its own. `body`: bytes, or what becomes JSON."""
    path = "/" + url.removeprefix("http://").partition("/")[2]
    with Wire(url, timeout) as wire:
        # Beside the reading: a peer that refuses a large body answers before it has read it all, and closes.
        def send():
            with contextlib.suppress(OSError):
                wire.send(method, path, {"connection": "close", **(headers or {})}, body)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        try:
            return wire.answer(method)
        finally:
            with contextlib.suppress(OSError):
                wire.socket.shutdown(socket.SHUT_RDWR)
            sender.join(5)


@dataclasses.dataclass
class Frame:
    """One server-sent event, or a comment, with the time at which it was complete."""

    at: float
    data: str | None = None
    comment: str | None = None
    event: str | None = None

    def json(self):
        return json.loads(self.data)


def frames(wire):
    """The server-sent events of an answer whose head has been read, each as it comes."""
    buffer = b""
    for piece in wire.pieces():
        buffer += piece
        while b"\n\n" in buffer:
            block, _, buffer = buffer.partition(b"\n\n")
            yield frame(block.decode())
    assert not buffer.strip(), f"the stream ended inside an event: {buffer!r}"


def frame(block):
    data, comment, event = [], None, None
    for line in block.split("\n"):
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line.startswith(":"):
            comment = line[1:].strip()
        elif line.startswith("event:"):
            event = line[6:].strip()
    return Frame(time.monotonic(), "\n".join(data) if data else None, comment, event)


def json_lines(text):
    """The JSON objects among the lines of a log, nested `fields` lifted."""
    for line in text.splitlines():
        start = line.find("{")
        if start < 0:
            continue
        with contextlib.suppress(ValueError):
            found = json.loads(line[start:])
            if isinstance(found, dict):
                fields = found.pop("fields", None)
                yield found | (fields if isinstance(fields, dict) else {})

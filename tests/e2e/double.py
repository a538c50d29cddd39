"""A scripted upstream, for the faults that a real llama-server cannot be made to show at will.

It speaks llama-server's `/v1/chat/completions` as far as the tests need it. The request's `model` chooses the script: the
gateway is asked for `double/<script>`. Everything that it received is kept, with the time at which the peer left.
"""

import asyncio
import contextlib
import dataclasses
import json
import re
import threading
import time

# A name for a secret that the double repeats in an error, as some backends do.
SECRET = "sk-upstream-secret-0123456789"


@dataclasses.dataclass
class Seen:
    """One request that came in."""

    method: str
    path: str
    headers: dict
    body: bytes
    at: float
    header_list: list = dataclasses.field(default_factory=list)
    # When the peer closed the connection while the answer was under way.
    left: float | None = None
    # The script ran to its end.
    ended: bool = False

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def prompt(self):
        return self.json["messages"][-1]["content"]


def chunk(delta, finish=None, **more):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    base = {"id": "chatcmpl-double", "object": "chat.completion.chunk", "created": 1700000000, "model": "double"}
    return base | {"choices": [choice]} | more


def whole(text, **more):
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    base = {"id": "chatcmpl-double", "object": "chat.completion", "created": 1700000000, "model": "double"}
    return base | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage} | more


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


class Connection:
    """What a script writes with."""

    def __init__(self, writer, seen):
        self.writer = writer
        self.seen = seen

    async def raw(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def whole(self, status, body, kind="application/json", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def stream(self, kind="text/event-stream"):
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        await self.raw(head.encode())

    async def piece(self, data):
        await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, value):
        text = value if isinstance(value, str) else json.dumps(value)
        await self.piece(f"data: {text}\n\n".encode())

    async def comment(self):
        await self.piece(b":\n\n")

    async def words(self, *words):
        for word in words:
            await self.event(chunk({"content": word}))

    async def begin(self, *words):
        """The head, the role, and some words."""
        await self.stream()
        await self.event(chunk({"role": "assistant", "content": None}))
        await self.words(*words)

    async def end(self):
        """A good end: finish, usage, [DONE]."""
        await self.event(chunk({}, "stop"))
        await self.event(chunk({}) | {"choices": [], "usage": USAGE})
        await self.event("[DONE]")
        await self.raw(b"0\r\n\r\n")

    def cut(self):
        """Resets the connection."""
        self.writer.transport.abort()

    @property
    def streaming(self):
        return bool(self.seen.json.get("stream"))


async def forever():
    await asyncio.sleep(3600)


class Scripts:
    """One method per script."""

    async def ok(self, c):
        if c.streaming:
            await c.begin("two ", "words")
            await c.end()
        else:
            await c.whole(200, whole("two words"))

    async def silent(self, c):
        """Takes the request and never answers."""
        await forever()

    async def head_only(self, c):
        """Answers 200 at once, then nothing: a timer that ends with the headers would wait for ever."""
        await c.stream("text/event-stream" if c.streaming else "application/json")
        await forever()

    async def half(self, c):
        """Half of an answer that is not streamed, then nothing."""
        await c.raw(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"id": "x", ')
        await forever()

    async def comments(self, c):
        """Keep-alive comments, and never a token."""
        await c.stream()
        while True:
            await c.comment()
            await asyncio.sleep(0.05)

    async def role_only(self, c):
        """The opening chunk, which holds no token, then nothing."""
        await c.begin()
        await forever()

    async def stall(self, c):
        """Two tokens, then nothing."""
        await c.begin("two ", "words")
        await forever()

    async def stall_comments(self, c):
        """Two tokens, then comments only."""
        await c.begin("two ", "words")
        while True:
            await c.comment()
            await asyncio.sleep(0.05)

    async def drip(self, c):
        """A token every 100 ms, without end."""
        await c.begin()
        while True:
            await c.words("drip ")
            await asyncio.sleep(0.1)

    async def late(self, c):
        """A good answer whose first token comes after 1.2 s."""
        if c.streaming:
            await c.stream()
        await asyncio.sleep(1.2)
        if c.streaming:
            await c.words("late")
            await c.end()
        else:
            await c.whole(200, whole("late"))

    async def cut(self, c):
        """Two tokens, then the connection is reset."""
        if c.streaming:
            await c.begin("two ", "words")
        else:
            await c.raw(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"id": "x", ')
        await asyncio.sleep(0.1)
        c.cut()

    async def early_end(self, c):
        """Two tokens, then a proper end of the body, without a finish and without [DONE]."""
        await c.begin("two ", "words")
        await c.raw(b"0\r\n\r\n")

    async def error_first(self, c):
        """llama-server sends 200 when the prompt starts; what goes wrong later comes inside the stream."""
        await c.stream()
        await c.event({"error": {"code": 500, "message": "the context was lost", "type": "server_error"}})
        await c.raw(b"0\r\n\r\n")

    async def error_later(self, c):
        """Two tokens, then an error, then the end without [DONE], as llama-server does it."""
        await c.begin("two ", "words")
        await c.event({"error": {"code": 500, "message": "the context was lost", "type": "server_error"}})
        await c.raw(b"0\r\n\r\n")

    async def garbage(self, c):
        """200 with what is no JSON."""
        if c.streaming:
            await c.stream()
            await c.event("{not json")
            await c.raw(b"0\r\n\r\n")
        else:
            await c.whole(200, b"{not json")

    async def no_choices(self, c):
        """JSON, but not an answer."""
        await c.whole(200, {"hello": "world"})

    async def html(self, c):
        """What a proxy in front of the backend says."""
        await c.whole(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", "text/html")

    async def not_http(self, c):
        """Not an HTTP server at all."""
        await c.raw(b"220 mail.example ESMTP\r\n")
        c.cut()

    async def redirect(self, c):
        """A redirect, which must not be followed: it would carry the key to another host."""
        await c.whole(307, b"", location="http://127.0.0.1:1/elsewhere")

    async def loading(self, c):
        """llama-server while it loads the model."""
        error = {"message": "Loading model", "type": "unavailable_error", "code": 503}
        await c.whole(503, {"error": error})

    async def limited(self, c):
        """Too many requests, with the time to wait."""
        error = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
        await c.whole(429, {"error": error}, retry_after="7")

    async def unauthorized(self, c):
        """Our key is refused, and the backend repeats it."""
        error = {"message": f"Incorrect API key provided: {SECRET}", "type": "authentication_error", "code": 401}
        await c.whole(401, {"error": error})

    async def repeats_secret(self, c):
        """An error which repeats the key that we sent."""
        key = c.seen.headers.get("authorization", "")
        await c.whole(500, {"error": {"code": 500, "message": f"cannot use {key}", "type": "server_error"}})

    async def broken(self, c):
        """A failure whose text is long."""
        text = "the model fell over: " + "x" * 5000
        await c.whole(500, {"error": {"code": 500, "message": text, "type": "server_error"}})

    async def endless_line(self, c):
        """An event that never ends, 64 MiB and more."""
        await c.stream()
        await c.piece(b"data: ")
        while True:
            await c.piece(b"x" * 65536)

    async def endless_body(self, c):
        """A body without an end."""
        await c.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        await c.piece(b'{"id": "')
        while True:
            await c.piece(b"x" * 65536)

    async def crlf(self, c):
        """Server-sent events with CRLF, comments, and cuts in the middle of characters and lines."""
        await c.stream()
        text = ": hello\r\n\r\n"
        for word in ("grüße ", "日本"):
            text += "data: " + json.dumps(chunk({"content": word}), ensure_ascii=False) + "\r\n\r\n"
        text += "data:" + json.dumps(chunk({}, "stop")) + "\r\n\r\ndata: [DONE]\r\n\r\n"
        data = text.encode()
        for at in range(0, len(data), 7):
            await c.piece(data[at : at + 7])
        await c.raw(b"0\r\n\r\n")

    async def parallel_tools(self, c):
        """Two tool calls at once, their arguments interleaved."""
        await c.begin()

        def call(index, arguments, **start):
            return chunk({"tool_calls": [{"index": index, **start, "function": arguments}]})

        await c.event(call(0, {"name": "one", "arguments": ""}, id="call_a", type="function"))
        await c.event(call(1, {"name": "two", "arguments": ""}, id="call_b", type="function"))
        for index, text in ((0, '{"a"'), (1, '{"b":'), (0, ":1}"), (1, "2}")):
            await c.event(call(index, {"arguments": text}))
        await c.event(chunk({}, "tool_calls"))
        await c.event("[DONE]")
        await c.raw(b"0\r\n\r\n")

    async def loud(self, c):
        """Tokens as fast as they can be taken."""
        await c.begin()
        while True:
            await c.words("loud " * 100)


async def receive(reader):
    """One request of a connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:] if line)]
    headers = {name.lower(): value for name, value in pairs}
    body = b""
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif "chunked" in headers.get("transfer-encoding", ""):
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    return Seen(method, path, headers, body, time.monotonic(), pairs)


async def attend(reader, seen, work):
    """Does the work of answering while the peer is there. Whether it came to its end."""
    script = asyncio.ensure_future(work)
    peer = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({script, peer}, return_when=asyncio.FIRST_COMPLETED)
        # Nobody pipelines here: what ends the reading is that the peer has gone.
        if not script.done() or script.exception() is not None:
            seen.left = time.monotonic()
            return False
        seen.ended = True
        return True
    finally:
        for task in (script, peer):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


class Double:
    """The server, in a thread of its own."""

    def __init__(self):
        self.requests = []
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(10)
        self.url = f"http://127.0.0.1:{self.port}"

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()

    async def _serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._request(reader, writer):
                pass
        writer.transport.abort()

    async def _request(self, reader, writer):
        seen = await receive(reader)
        connection = Connection(writer, seen)
        if seen.method == "GET":
            # llama-server's own two, which a readiness probe may ask for.
            known = {"/health": {"status": "ok"}, "/v1/models": {"object": "list", "data": []}}
            await connection.whole(200 if seen.path in known else 404, known.get(seen.path, {}))
            return True
        self.requests.append(seen)
        name = re.sub(r"\W", "_", seen.json.get("model", "ok"))
        return await attend(reader, seen, getattr(Scripts(), name)(connection)) and not writer.transport.is_closing()

    def of(self, prompt):
        """The requests with this prompt."""
        return [seen for seen in list(self.requests) if seen.body and prompt in seen.body.decode()]

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

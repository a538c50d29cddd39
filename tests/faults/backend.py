"""A backend that can be killed, stopped and told to misbehave: OpenAI's chat completions, in a process of its own.

    backend.py PORT COUNTS

It counts an answer, as a line of the file COUNTS with its tokens, when all of it has been written to a peer that is still
there: what the gateway has given up is not counted. The file outlives the process. `POST /mode/<mode>` says how it
behaves from then on: `ok`, `throttle` (429 with retry-after), `flap` (every other half second 500), `loading` (503).
"""

import asyncio
import itertools
import json
import sys
import time

MODE = "ok"
NUMBERS = itertools.count()


def chunk(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-f", "object": "chat.completion.chunk", "created": 1, "model": "f", "choices": [choice]}


def usage(tokens):
    return {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}


def answer(stream, tokens):
    """The body, and its kind."""
    text = "word " * tokens
    if not stream:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        whole = {"id": "chatcmpl-f", "object": "chat.completion", "created": 1, "model": "f", "choices": [choice]}
        return json.dumps(whole | {"usage": usage(tokens)}).encode(), "application/json"
    events = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": "word "}) for _ in range(tokens))]
    events += [chunk({}, "stop"), chunk({}) | {"choices": [], "usage": usage(tokens)}]
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return (lines + "data: [DONE]\n\n").encode(), "text/event-stream"


async def reply(writer, status, body, kind="application/json", **headers):
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    head += "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    # At once: a process that is killed has sent all of an answer or none.
    writer.write(head.encode() + b"\r\n" + body)
    await writer.drain()


async def serve(counts, reader, writer):
    global MODE
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = dict((n.strip().lower(), v.strip()) for n, _, v in (h.partition(":") for h in head[1:] if h))
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if method == "GET":
                await reply(writer, 200, b'{"object":"list","data":[],"status":"ok"}')
            elif path.startswith("/mode/"):
                MODE = path.removeprefix("/mode/")
                await reply(writer, 200, b"{}")
            elif MODE == "throttle":
                await reply(writer, 429, b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}', retry_after=2)
            elif MODE == "loading":
                await reply(writer, 503, b'{"error":{"message":"Loading model","code":503}}')
            elif MODE == "flap" and int(time.monotonic() * 2) % 2:
                await reply(writer, 500, b'{"error":{"message":"broken"}}')
            else:
                number = next(NUMBERS)
                await asyncio.sleep(0.005 + number % 10 / 100)
                # Whatever came while this process was stopped is seen by now.
                for _ in range(3):
                    await asyncio.sleep(0)
                if reader.at_eof() or writer.transport.is_closing():
                    return
                tokens = 1 + number % 40
                text, kind = answer(json.loads(body).get("stream"), tokens)
                await reply(writer, 200, text, kind)
                counts.write(f"{tokens}\n")
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.transport.abort()


async def main():
    # Unbuffered but for the line: what is counted is in the file, whatever happens to the process.
    counts = open(sys.argv[2], "a", buffering=1)
    server = await asyncio.start_server(lambda r, w: serve(counts, r, w), "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())

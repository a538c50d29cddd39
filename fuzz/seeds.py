#!/usr/bin/env python3
"""Write the kept corpus of each fuzz target: fuzz/corpus/TARGET/.

Made of the recorded answers and requests under tests/fixtures/upstream, and of a few written by hand, each behind the
bytes by which its target picks what to do with it (see the head of fuzz/targets/TARGET.rs). Run it again when fixtures
or those bytes change. Nothing but the standard library is needed.
"""

import base64
import json
import pathlib
import shutil
import struct

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = HERE.parent / "tests" / "fixtures" / "upstream"
LARGEST = 4096


def write(target, name, head, body):
    if isinstance(body, str):
        body = body.encode()
    (HERE / "corpus" / target / name).write_bytes(bytes(head) + body[:LARGEST])


def lines_of(stream, keep_lines=False):
    """An event stream as the lines from which the targets write one: `e NAME PAYLOAD` and so on."""
    lines = []
    while len(stream) >= 16:
        total, size = struct.unpack(">II", stream[:8])
        if total > len(stream):
            break
        headers, at = {}, 12
        while at < 12 + size:
            name = stream[at + 1 : at + 1 + stream[at]].decode()
            at += 1 + stream[at]
            kind = stream[at]
            at += 1
            if kind in (6, 7):
                length = struct.unpack(">H", stream[at : at + 2])[0]
                headers[name] = stream[at + 2 : at + 2 + length]
                at += 2 + length
            else:
                # Only strings can be written as text; no decoder branches on another kind.
                at += {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}[kind]
        payload = stream[12 + size : total - 4]
        kind = headers.get(":message-type")
        if kind == b"error":
            lines.append(b"r " + headers[":error-code"] + b" " + headers.get(":error-message", b""))
        elif kind == b"exception":
            lines.append(b"x " + headers[":exception-type"] + b" " + payload)
        else:
            lines.append(b"e " + headers.get(":event-type", b"") + b" " + payload)
        stream = stream[total:]
    return b"\n".join(line.replace(b"\n", b"\1" if keep_lines else b" ") for line in lines)


ANTHROPIC = """event: message_start
data: {"type":"message_start","message":{"id":"msg_1","role":"assistant","usage":{"input_tokens":9}}}

event: ping
data: {"type": "ping"}

event: content_block_delta
id: 3
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Grüße 🦙"}}

event: message_stop
data: {"type":"message_stop"}

"""
OLLAMA = """{"model":"m","message":{"role":"assistant","content":"Hi"},"done":false}
\r
{"model":"m","message":{"role":"assistant","content":""},"done":true,"eval_count":2}
"""
STANDARD = "\ufeffdata: YHOO\ndata: +2\r\ndata\r\r: comment\nretry: 5\nid\nid: a\0b\nevent:\ndata:  x\n\ndata: open"

OPENAI = {
    "text": """data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini",\
"service_tier":"default","system_fingerprint":"fp","choices":[{"index":0,"delta":{"role":"assistant","content":"",\
"refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"x"}

: keep-alive

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: {"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10,\
"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":0}}}

data: [DONE]

""",
    "error": 'data: {"id":"1","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    'data: {"error":{"message":"overloaded","type":"server_error","code":503}}\n\n',
    "refusal": 'data: {"id":"1","choices":[{"index":0,"delta":{"refusal":"No."}}]}\n\n'
    'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}\n\ndata: [DONE]\n\n',
    # Found by the fuzzer: what comes behind the finish broke the order of events in front of the failure.
    "after-finish": 'data: {"id":"1","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    'data: {"id":"1","choices":[{"index":0,"delta":{"content":"b"}}]}\n\n',
    "reasoning": 'data: {"id":"1","choices":[{"index":1,"delta":{"reasoning_content":"Hm"}}]}\n\n'
    'data: {"id":"1","choices":[{"index":1,"delta":{"content":"a"},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n',
}
REQUESTS = {
    "tools": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "u", "content": [{"type": "text", "text": "Weather?"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"city":"Bern"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "Rain"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "get", "description": "d", "parameters": {"type": "object"}, "strict": True},
            },
            {"type": "web_search"},
        ],
        "tool_choice": {"type": "function", "function": {"name": "get"}},
        "parallel_tool_calls": False,
        "stream": True,
        "stream_options": {"include_usage": True, "more": 1},
    },
    "media": {
        "model": "m",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1"}},
                    {"type": "custom", "x": [1, 2.50, 1e400]},
                ],
            },
        ],
    },
    "sampling": {
        "model": "m",
        "messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "n": 2,
        "seed": -1,
        "stop": ["a", "\n"],
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"50256": -100},
        "max_tokens": 5,
        "max_completion_tokens": 9,
        "reasoning_effort": "low",
        "user": "u",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        "unknown": {"deep": [[[[1]]]]},
    },
    "completion": {"model": "m", "prompt": "Once", "suffix": ".", "echo": True, "best_of": 2, "logprobs": 3},
    "llm": {"prompt": "Hello", "model": "m", "max_tokens": 5, "temperature": 0},
}
BROKEN = {
    "twice": '{"model":"a","model":"b","messages":[]}',
    "deep": '{"messages":' + "[" * 200,
    "escapes": '{"messages":[{"role":"user","content":"\\ud83e\\udd99 \\ud800 \\u0000"}]}',
    "utf8": b'{"messages":[{"role":"user","content":"\xff"}]}',
    "other-escapes": '{"messages":[{"role":"user","content":"x"}],"a\\/b":"\\u0041"}',
    "types": '{"model":1,"messages":{"role":[]},"stream":"yes"}',
}


def framing():
    write("framing", "sse-openai", [1], OPENAI["text"])
    write("framing", "sse-anthropic", [1], ANTHROPIC)
    write("framing", "sse-crlf", [1], ANTHROPIC.replace("\n", "\r\n"))
    write("framing", "sse-standard", [1], STANDARD)
    write("framing", "sse-small-limit", [0x51], STANDARD)
    write("framing", "ndjson", [3], OLLAMA)
    write("framing", "ndjson-small-limit", [0x63], OLLAMA)
    write("framing", "whole", [0], '{"a":1}')
    write("framing", "raw", [8], ANTHROPIC)
    for name in ["text", "tool", "truncated", "error"]:
        stream = (FIXTURES / "bedrock" / f"stream-{name}.bin").read_bytes()
        write("framing", f"aws-{name}", [4], stream)
        write("framing", f"aws-{name}-mended", [5], stream)
        write("framing", f"aws-{name}-written", [7], lines_of(stream))
    # One header of each type: 0 to 9.
    headers = b"".join(
        bytes([1, ord("a") + kind, kind]) + value
        for kind, value in enumerate(
            [b"", b"", b"\xff", b"\0\1", b"\0" * 4, b"\xff" * 8, b"\0\2ab", b"\0\2cd", b"\0" * 8, b"\1" * 16]
        )
    )
    message = struct.pack(">III", 16 + len(headers) + 2, len(headers), 0) + headers + b"{}" + b"\0" * 4
    write("framing", "aws-all-types", [5], message * 2)


BACKENDS = json.loads((HERE / "backends.json").read_text())
STATUSES = [400, 401, 403, 404, 408, 413, 422, 424, 429, 500, 501, 502, 503, 504, 529, 302]
# What kind of answer it is, and how a stream of AWS's is made of the input.
STREAMED, WHOLE, ERROR, ODD = 0x00, 0x40, 0x80, 0xC0
BYTES, MENDED, WRITTEN = 0x00, 0x40, 0x80


def place(adapter, context=None):
    """Where in `backends.json` the adapter stands with this context."""
    found = [at for at, it in enumerate(BACKENDS) if (it["adapter"], it.get("context")) == (adapter, context)]
    if not found:
        raise SystemExit(f"fuzz/backends.json has no {adapter} with the context {context!r}")
    return found[0]


def hosted(stream):
    """The lines of an event stream, with what its events carry written plainly."""
    lines = []
    for line in lines_of(stream, keep_lines=True).split(b"\n"):
        kind, _, rest = line.partition(b" ")
        name, _, payload = rest.partition(b" ")
        if name != b"PayloadPart":
            line, payload = line.replace(b"\1", b" "), payload.replace(b"\1", b" ")
        if kind == b"e" and name == b"chunk":
            try:
                carried = base64.b64decode(json.loads(payload)["bytes"], validate=True)
                line = b"b chunk " + carried.replace(b"\n", b" ")
            except (ValueError, KeyError):
                pass
        elif kind == b"e" and name == b"PayloadPart":
            line = b"l PayloadPart " + payload
        lines.append(line)
    return b"\n".join(lines)


def decode():
    for name, body in OPENAI.items():
        write("decode", f"openai-{name}", [place("openai"), STREAMED, 1], body)
        write("decode", f"stub-{name}", [place("stub"), STREAMED, 1], body)
    for folder in sorted(FIXTURES.iterdir()):
        adapter = folder.name
        for name, entry in sorted(json.loads((folder / "meta.json").read_text()).items()):
            body = (folder / name).read_bytes()
            # A failure of a kind is as rich as the next one, and so are the longest streams once they are cut.
            status = entry.get("status", 200)
            if status != 200 and len(body) > 1024 or len(body) > 4 * LARGEST:
                continue
            context = entry.get("context")
            if adapter == "llama-cpp":
                context = "chat 2" if "two" in name else "completion 1" if name.startswith("completion") else context
            first = place(adapter, context)
            stream = 0 if name.endswith(".json") else 1
            if status != 200:
                kind = ERROR | STATUSES.index(status) if status in STATUSES else ERROR | 9
            else:
                kind = STREAMED if stream else WHOLE
            if name.endswith(".bin"):
                first, body = first | WRITTEN, hosted(body)
            write("decode", f"{adapter}-{name}", [first, kind, stream], body)
    for name in ["text", "tool"]:
        body = (FIXTURES / "bedrock" / f"stream-{name}.bin").read_bytes()
        write("decode", f"bedrock-bytes-{name}", [place("bedrock") | BYTES, STREAMED, 1], body)
        write("decode", f"bedrock-mended-{name}", [place("bedrock") | MENDED, STREAMED, 1], body)
    write("decode", "openai-as-lines", [place("openai"), ODD | 1, 1], OLLAMA)
    write("decode", "bedrock-as-events", [place("bedrock"), ODD | 2, 1], OPENAI["text"])
    write("decode", "bedrock-no-context", [place("bedrock", "[]"), WHOLE, 0], "{}")


def parse():
    # The first byte is the place of the route: 0 and 2 chat, 3 completions, 5 the AWA route.
    for route, names in {0: REQUESTS, 2: ["media"], 3: ["completion", "sampling"], 5: ["llm", "completion"]}.items():
        for name in names:
            write("parse", f"{name}-{route}", [route], json.dumps(REQUESTS[name]))
    write("parse", "tight", [0x80], json.dumps(REQUESTS["sampling"]))
    for name, body in BROKEN.items():
        write("parse", name, [0], body)
    meta = json.loads((FIXTURES / "llama-cpp" / "meta.json").read_text())
    for name, entry in sorted(meta.items()):
        if name.endswith(".json") and isinstance(entry.get("request"), dict):
            route = 0 if "chat" in entry["path"] else 3
            write("parse", f"llama-cpp-{name}", [route], json.dumps(entry["request"], ensure_ascii=False))


for make in [framing, decode, parse]:
    folder = HERE / "corpus" / make.__name__
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make()
    files = list(folder.iterdir())
    print(f"{make.__name__}: {len(files)} files, {sum(file.stat().st_size for file in files)} bytes")

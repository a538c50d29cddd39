"""Servers that replay tests/fixtures/upstream: Ollama's API, Anthropic's and OpenAI's, each below a path of its own.

The request's `model` chooses the fixture: `text` is answered by Anthropic's server with message-text.json, or with
stream-text.sse where a stream is asked for, and `error-429` with error-429.json, its status and headers. Behind an @ stands
how it is sent: `text@3` in pieces of three bytes, `text@reset` as half of an answer, then a connection that is reset.

What these APIs demand of a request is demanded here: one without it is refused, and told to the test by `wrong`.
"""

import asyncio
import json

import kit
from double import SECRET, Connection, Double, attend, receive

FIXTURES = kit.ROOT / "tests" / "fixtures" / "upstream"

# Of each API, by its path: what the names of its fixtures begin with, for whole answers and for streams.
PATHS = {
    "/anthropic/v1/messages": ("message-", "stream-"),
    "/ollama/api/chat": ("chat-", "chat-"),
    "/ollama/api/generate": ("generate-", "generate-"),
    "/openai/chat/completions": ("chat-", "chat-"),
    "/openai/responses": ("responses-", "responses-"),
}
# The paths that have one answer.
FIXED = {
    "/anthropic/v1/messages/count_tokens": "count.json",
    "/anthropic/v1/models": "models.json",
    "/ollama/api/embed": "embed.json",
    "/ollama/api/tags": "tags.json",
    "/openai/completions": "completion.json",
    "/openai/embeddings": "embeddings.json",
    "/openai/models": "models.json",
}


class Wrong(Exception):
    """What a request lacks."""


def need(condition, message):
    if not condition:
        raise Wrong(message)


def only(value, *names):
    """An object without other members."""
    need(isinstance(value, dict), f"an object is wanted, not {value!r}")
    need(not set(value) - set(names), f"unknown members {sorted(set(value) - set(names))}")


def typed(value, **types):
    """Members that have these types where they are there."""
    for name, kind in types.items():
        if name in value:
            bad = not isinstance(value[name], kind) or (isinstance(value[name], bool) and kind is not bool)
            need(not bad, f"{name}: {value[name]!r}")


def text(value, name):
    need(isinstance(value.get(name), str) and value[name], f"{name}: a text is wanted, not {value.get(name)!r}")


def filled(value, name):
    need(isinstance(value.get(name), list) and value[name], f"{name}: a list is wanted, not {value.get(name)!r}")
    return value[name]


NUMBER = (int, float)
# Anthropic's: the one that its documents name, and the one that its Python client 2.12 asks for.
VERSIONS = ("2023-06-01", "2026-10-21")


def anthropic(seen, body):
    need(seen.headers.get("anthropic-version") in VERSIONS, "anthropic-version")
    if body is None:
        return
    count = seen.path.endswith("count_tokens")
    both = "model messages system tools tool_choice thinking output_config cache_control".split()
    more = "max_tokens stream temperature top_p top_k stop_sequences metadata service_tier".split()
    only(body, *both, *([] if count else more))
    if not count:
        need(isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 0, f"max_tokens: {body.get('max_tokens')!r}")
    typed(body, stream=bool, temperature=NUMBER, top_p=NUMBER, top_k=int, stop_sequences=list)
    need(0 <= body.get("temperature", 0) <= 1, "temperature: 0 to 1")
    asked = set()
    for message in filled(body, "messages"):
        only(message, "role", "content")
        need(message["role"] in ("user", "assistant"), f"role {message['role']!r}")
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else filled(message, "content")
        answered = {block.get("tool_use_id") for block in blocks if block["type"] == "tool_result"}
        need(answered == asked, f"results {answered} for calls {asked}")
        asked = {block.get("id") for block in blocks if block["type"] == "tool_use"}
        for block in blocks:
            if block["type"] == "text":
                text(block, "text")
            if block["type"] == "tool_use":
                need(message["role"] == "assistant" and isinstance(block["input"], dict), "tool_use")
                text(block, "name")
    for tool in body.get("tools", []):
        text(tool, "name")
        need("type" in tool or tool["input_schema"]["type"] == "object", "input_schema")
    need("tool_choice" not in body or body.get("tools"), "tool_choice without tools")


def ollama(seen, body):
    if body is None:
        return
    typed(body, options=dict, stream=bool)
    if seen.path.endswith("/api/embed"):
        only(body, "model", "input", "truncate", "options", "keep_alive", "dimensions")
        need(isinstance(body.get("input"), str | list), "input")
        return
    both = "model stream format options think keep_alive logprobs top_logprobs truncate shift".split()
    if seen.path.endswith("/api/generate"):
        only(body, *both, "prompt", "suffix", "system", "template", "context", "raw", "images")
        need(isinstance(body.get("prompt"), str), "prompt")
        return
    only(body, *both, "messages", "tools")
    need("format" not in body or body["format"] == "json" or isinstance(body["format"], dict), "format")
    for message in filled(body, "messages"):
        only(message, "role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id")
        need(message["role"] in ("system", "user", "assistant", "tool"), f"role {message['role']!r}")
        need(isinstance(message.get("content", ""), str), "content is a text")
        for call in message.get("tool_calls", []):
            need(isinstance(call["function"]["arguments"], dict), "arguments are an object")
    for tool in body.get("tools", []):
        need(tool["type"] == "function" and tool["function"]["name"], "tools")


def openai(seen, body):
    if body is None:
        return
    typed(body, stream=bool, temperature=NUMBER, top_p=NUMBER, n=int, max_tokens=int, max_completion_tokens=int)
    need("stream_options" not in body or body.get("stream"), "stream_options: only with a stream")
    if seen.path == "/openai/embeddings":
        only(body, "model", "input", "encoding_format", "dimensions", "user")
        need(isinstance(body.get("input"), str | list) and body["input"], "input")
    if seen.path == "/openai/completions":
        need(isinstance(body.get("prompt"), str | list), "prompt")
    if seen.path == "/openai/responses":
        need(isinstance(body.get("input"), str | list) and body["input"], "input")
        need("messages" not in body and "max_tokens" not in body, "members of Chat Completions")
        for tool in body.get("tools", []):
            need(tool["type"] != "function" or tool["name"], "tools")
    if seen.path != "/openai/chat/completions":
        return
    asked = set()
    for message in filled(body, "messages"):
        role = message.get("role")
        need(role in ("system", "developer", "user", "assistant", "tool"), f"role {role!r}")
        calls = message.get("tool_calls", [])
        need(isinstance(message.get("content"), str | list) or calls, f"content of {role}")
        if role == "tool":
            need(message.get("tool_call_id") in asked, "tool_call_id answers no call")
            asked.discard(message["tool_call_id"])
        else:
            need(not asked, f"calls without results: {asked}")
        for call in calls:
            need(call["type"] == "function" and isinstance(call["function"]["arguments"], str), "tool_calls")
            asked.add(call["id"])
    for tool in body.get("tools", []):
        need(tool["type"] != "function" or tool["function"]["name"], "tools")
    need("tool_choice" not in body or body.get("tools"), "tool_choice without tools")


RULES = {"anthropic": anthropic, "ollama": ollama, "openai": openai}


def refusal(api, status, message):
    """How each API says no."""
    if api == "ollama":
        return {"error": message}
    kind = "authentication_error" if status == 401 else "invalid_request_error"
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error} if api == "anthropic" else {"error": error | {"param": None, "code": None}}


def key_of(seen, api):
    # Anthropic's own client, too, sends a bearer by now.
    given = api == "anthropic" and seen.headers.get("x-api-key")
    return given or seen.headers.get("authorization", "").removeprefix("Bearer ")


def fixture(api, path, model, stream):
    """File name and facts of the answer."""
    meta = json.loads((FIXTURES / api / "meta.json").read_text())
    if path in FIXED:
        return FIXED[path], meta.get(FIXED[path], {})
    prefix = PATHS[path][1 if stream else 0]
    ends = ("sse", "ndjson", "json", "html") if stream else ("json", "html")
    for name in [f"{prefix}{model}.{end}" for end in ends] + [f"{model}.{end}" for end in ("json", "html")]:
        if name in meta and name.endswith(("sse", "ndjson")) == (stream and not name.startswith("error-")):
            return name, meta[name]
    return None, None


class Replay(Double):
    """The server, in a thread of its own."""

    def __init__(self):
        self.faults = []
        super().__init__()

    async def _request(self, reader, writer):
        seen = await receive(reader)
        seen.path = seen.path.partition("?")[0]
        self.requests.append(seen)
        return await attend(reader, seen, self._answer(Connection(writer, seen))) and not writer.transport.is_closing()

    async def _answer(self, c):
        api = c.seen.path.split("/")[1]
        if api not in RULES or c.seen.path not in PATHS | FIXED:
            return await c.whole(404, {"error": f"{c.seen.path} is not there"})
        if key_of(c.seen, api) != SECRET:
            return await c.whole(401, refusal(api, 401, "the key is wrong"))
        try:
            body = json.loads(c.seen.body) if c.seen.body else None
            need((c.seen.method == "POST") == (body is not None), f"{c.seen.method} and its body")
            if body is not None:
                need(c.seen.headers.get("content-type") == "application/json", "content-type")
                text(body, "model")
            RULES[api](c.seen, body)
        except (Wrong, ValueError, KeyError, TypeError) as fault:
            self.faults.append(f"{c.seen.method} {c.seen.path}: {fault!r}: {c.seen.body.decode()}")
            return await c.whole(400, refusal(api, 400, f"{fault!r}"))
        # Ollama streams where it is not told otherwise.
        stream = bool(body) and body.get("stream", api == "ollama")
        model, _, manner = (body or {}).get("model", "").partition("@")
        name, facts = fixture(api, c.seen.path, model, stream)
        if not name:
            return await c.whole(404, refusal(api, 404, f"no fixture for the model {model}"))
        if name == "embeddings.json" and (body or {}).get("encoding_format") == "base64":
            name = "embeddings-base64.json"
        await self._send(c, (FIXTURES / api / name).read_bytes(), facts, stream, manner)

    async def _send(self, c, data, facts, stream, manner):
        headers = dict(facts.get("headers", {}))
        kind = headers.pop("content-type", facts.get("content_type", "application/json"))
        if not stream or facts.get("status", 200) != 200:
            if manner == "reset":
                head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n\r\n"
                await c.raw(head.encode() + data[: len(data) // 2])
                return c.cut()
            return await c.whole(facts.get("status", 200), data, kind, **headers)
        await c.stream(kind)
        if manner == "reset":
            data = data[: len(data) // 2]
        size = int(manner) if manner.isdecimal() else len(data) or 1
        for at in range(0, len(data), size):
            await c.piece(data[at : at + size])
            await asyncio.sleep(0)
        if manner == "reset":
            # A reset takes with it what has not been read yet.
            await asyncio.sleep(0.05)
            return c.cut()
        await c.raw(b"0\r\n\r\n")

    def wrong(self):
        """What was wrong with the requests since the last question."""
        found, self.faults = self.faults, []
        return found

"""An adapter in Python: text chat with servers that speak OpenAI's API, whose answers are given back in capitals.
What it can't do it refuses."""
import json
import re
from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import types as t

ROLES = {t.Role_System: "system", t.Role_Developer: "system", t.Role_User: "user", t.Role_Assistant: "assistant"}
SAMPLING = "temperature top_p frequency_penalty presence_penalty seed max_tokens max_completion_tokens".split()
LACKING = "top_k min_p repetition_penalty n logit_bias logprobs top_logprobs".split()
REASONS = {"stop": t.FinishReason_Stop, "length": t.FinishReason_Length, "content_filter": t.FinishReason_ContentFilter}
OTHER, AGAIN = t.Retry_OtherTarget(), t.Retry_SameTarget(None)
KINDS = {400: (t.ErrorKind_InvalidRequest(), t.Retry_Never()), 401: (t.ErrorKind_Unauthenticated(), OTHER),
         429: (t.ErrorKind_RateLimited(), AGAIN), 503: (t.ErrorKind_Overloaded(), AGAIN)}
KINDS |= {403: (t.ErrorKind_Forbidden(), OTHER), 404: (t.ErrorKind_NotFound(), OTHER), 529: KINDS[503],
          413: (t.ErrorKind_TooLarge(), t.Retry_Never()), 422: KINDS[400]}
SETTINGS = {"suffix": {"type": "string", "description": "Shouted after every answer."}}

DEEPEST, STRINGS = 128, re.compile(r'"(?:\\.|[^"\\])*"?', re.S)

def refuse(param):
    raise Err(t.Error(t.ErrorKind_Unsupported(), f"can't pass on `{param}`", None, param, None, t.Retry_Never(), None))

def text_of(value):
    return value if isinstance(value, str) else None

def count_of(value):
    return value if isinstance(value, int) and 0 <= value < 2**64 else None

def parse(text):
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    # json calls itself for each level, and the component ends where the stack ends.
    if text.count("[") + text.count("{") > DEEPEST:
        depth = 0
        for c in STRINGS.sub("", text):
            depth += (c in "[{") - (c in "]}")
            if depth > DEEPEST:
                raise ValueError("nested too deep")
    return json.loads(text)

def http(method, path, body, framing):
    auth = t.Auth_Header(t.HeaderAuth("authorization", "Bearer ", "api_key"))
    headers = [("content-type", "application/json")] if body else []
    return t.HttpRequest(method, path, [], headers, body, auth, framing, None, [])

class Chat(exports.Chat):
    def describe(self):
        slot = t.SecretSlot("api_key", "Sent as a bearer token.", False)
        schema = {"type": "object", "properties": SETTINGS, "additionalProperties": False}
        return t.Description("shout-py", "0.1.0", "A server that speaks OpenAI's API, whose answers are shouted.", ["chat"],
                             [], ["openai-chat"], [slot], json.dumps(schema), None)

    def probe(self, settings):
        return http("GET", ["health"], b"", t.Framing_Whole())

    def encode(self, settings, request):
        framing = t.Framing_Sse() if request.stream else t.Framing_Whole()
        s, extra, messages = request.sampling, json.loads(request.extra or "{}"), []
        asked = {"prompt": not isinstance(request.input, t.Input_Chat), "tools": request.tools,
                 "response_format": request.response_format, "reasoning": request.reasoning,
                 "tool_choice": request.tool_choice, "parallel_tool_calls": request.parallel_tool_calls is not None, **{name: getattr(s, name) for name in LACKING},
                 **({} if request.dialect == "openai-chat" else dict.fromkeys(extra, True))}
        for name in filter(asked.get, asked):
            refuse(name)
        for at, m in enumerate(request.input.value):
            texts = [p.value.text for p in m.parts if isinstance(p, t.Part_Text) and p.value.extra in (None, "{}")]
            if type(m.role) not in ROLES or m.name or len(texts) < len(m.parts) or json.loads(m.extra or "{}"):
                refuse(f"messages[{at}]")
            messages.append({"role": ROLES[type(m.role)], "content": "".join(texts)})
        given = {name: getattr(s, name) for name in SAMPLING} | {"stop": s.stop or None, "user": request.end_user}
        given |= {"stream": True, "stream_options": {"include_usage": True}} if request.stream else {}
        given = {name: value for name, value in given.items() if value is not None}
        body = extra | {"model": request.model, "messages": messages} | given
        return http("POST", ["v1", "chat", "completions"], json.dumps(body).encode(), framing)

class Decoder:
    def __init__(self, settings, context, head):
        self.suffix = json.loads(settings or "{}").get("suffix", "").upper()
        self.head, self.body, self.started, self.text, self.reason, self.ended = head, b"", False, False, None, False

    def feed(self, frames):
        events = []
        for frame in (frame.value for frame in frames if not self.ended):
            if isinstance(frame, bytes):
                self.body += frame
            else:
                events += self.end() if frame.data == "[DONE]" else self.answer(frame.data, "delta")
        return events

    def finish(self):
        events = self.answer(self.body, "message") if self.body else []
        return events if self.ended else events + self.end()

    def answer(self, text, key):
        try:
            answer = parse(text)
            if self.head.status >= 300 or answer.get("error"):
                return self.fail(answer["error"])
            started = t.Started(text_of(answer.get("id")), text_of(answer.get("model")), count_of(answer.get("created")))
            events, self.started = [] if self.started else [t.Event_Started(started)], True
            for choice in answer.get("choices", []):
                events += self.say(choice.get(key, {}).get("content"))
                self.reason = text_of(choice.get("finish_reason")) or self.reason
            u = answer.get("usage") or {}
            counts = [count_of(u.get(name)) for name in ("prompt_tokens", "completion_tokens")]
            usage = t.Usage(*counts, None, None, None, False, None)
            return [*events, t.Event_Usage(usage)] if u else events
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return self.fail({"message": f"not an answer of OpenAI's API: {str(text)[:200]}"})

    def say(self, text):
        start = [] if self.text or not text else [t.Event_BlockStart(t.BlockStart(0, 0, t.BlockKind_Text()))]
        self.text = self.text or bool(text)
        return [*start, t.Event_Text(t.BlockDelta(0, text.upper(), None))] if text else []

    def end(self):
        if not self.reason or not self.started:
            return self.fail({"message": f"the answer (status {self.head.status}) ended without a finish_reason"})
        said = self.say(self.suffix)
        self.ended, stop = True, [*said, t.Event_BlockStop(0)] if self.text else []
        reason = REASONS.get(self.reason, lambda: t.FinishReason_Other(self.reason))()
        return [*stop, t.Event_Finish(t.Finish(0, reason, self.reason, None)), t.Event_Done()]

    def fail(self, raw):
        self.ended, code, status = True, raw.get("code"), self.head.status
        malformed = (t.ErrorKind_MalformedResponse(), OTHER) if status < 300 else (t.ErrorKind_UpstreamFailure(), AGAIN)
        kind, retry = KINDS.get(status if status >= 300 else code, malformed)
        message, code = str(raw.get("message") or f"status {status}"), code and str(code)
        return [t.Event_Failed(t.Error(kind, message, code, None, status, retry, json.dumps(raw)))]

#!/usr/bin/env python3
"""The Python adapter without a component: against the answers of a real llama-server that are kept as fixtures.

    test_chat.py [VENV]        needs componentize-py (for the bindings) in the environment that `build` makes
"""
import json, os, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../..")
FIXTURES = os.path.join(ROOT, "tests/fixtures/upstream/llama-cpp")
VENV = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "target/guests/python-venv")

bindings = tempfile.TemporaryDirectory()
subprocess.run([os.path.join(VENV, "bin/componentize-py"), "-q", "-d", os.path.join(ROOT, "wit/adapter"), "-w", "adapter",
                "bindings", bindings.name], check=True)
sys.path[:0] = [HERE, bindings.name]
sys.dont_write_bytecode = True
import chat
from componentize_py_types import Err
from wit_world.imports import types as t


def request(**changes):
    sampling = t.Sampling(**{name: None for name in t.Sampling.__dataclass_fields__ if name != "stop"} | {"stop": []})
    part = t.Part_Text(t.TextPart("Hello", None, None))
    messages = [t.Message(t.Role_User(), None, [part], None)]
    fields = dict(model="m", dialect="openai-chat", input=t.Input_Chat(messages), tools=[], tool_choice=None,
                  parallel_tool_calls=None, response_format=None, sampling=sampling, reasoning=None, stream=False,
                  end_user=None, extra=None)
    return t.Request(**fields | changes)


def events(name, cut=1):
    with open(os.path.join(FIXTURES, "meta.json")) as file:
        meta = json.load(file)[name]
    with open(os.path.join(FIXTURES, name), "rb") as file:
        body = file.read()
    sse = meta["status"] == 200 and "event-stream" in meta["content_type"]
    head = t.ResponseHead(meta["status"], [], t.Framing_Sse() if sse else t.Framing_Whole(), sse)
    decoder = chat.Decoder("{}", None, head)
    frames = [t.Frame_Bytes(body)]
    if sse:
        datas = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
        frames = [t.Frame_Sse(t.SseEvent(None, data.rstrip("\r"), None)) for data in datas]
    out = []
    for at in range(0, len(frames), cut):
        if not out or not isinstance(out[-1], (t.Event_Done, t.Event_Failed)):
            out += decoder.feed(frames[at : at + cut])
    return out if out and isinstance(out[-1], (t.Event_Done, t.Event_Failed)) else out + decoder.finish()


def text(out):
    return "".join(event.value.text for event in out if isinstance(event, t.Event_Text))


# Encode.
http = chat.Chat().encode("{}", request(stream=True, extra='{"top_a":1}'))
assert json.loads(http.body) == {"top_a": 1, "model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True,
                                 "stream_options": {"include_usage": True}}, http.body
assert (http.path, http.framing) == (["v1", "chat", "completions"], t.Framing_Sse())
tool = t.Tool_Other("{}")
for changes, param in [(dict(tools=[tool]), "tools"), (dict(dialect="x", extra='{"a":0}'), "a"),
                       (dict(input=t.Input_Completion(t.CompletionPrompt("x", None, None, None))), "prompt"),
                       (dict(input=t.Input_Chat([t.Message(t.Role_Tool(), None, [], None)])), "messages[0]")]:
    try:
        chat.Chat().encode("{}", request(**changes))
        raise SystemExit(f"{param} was not refused")
    except Err as refusal:
        assert refusal.value.param == param and isinstance(refusal.value.kind, t.ErrorKind_Unsupported), refusal

# Decode: streamed and whole give the same text, however the frames come together.
for name in ["chat-characters", "chat-length", "chat-text"]:
    streamed, whole = events(name + ".sse"), events(name + ".json")
    assert streamed == events(name + ".sse", cut=5) == events(name + ".sse", cut=10_000)
    assert text(streamed) and text(streamed) == text(whole) == text(whole).upper(), name
    for out in (streamed, whole):
        assert isinstance(out[0], t.Event_Started) and isinstance(out[-2], t.Event_Finish) and out[-1] == t.Event_Done(), out
        assert sum(isinstance(event, t.Event_Usage) for event in out) == 1
assert events("chat-length.sse")[-2].value.reason == t.FinishReason_Length()

# Errors.
for name, kind in [("error-no-key.json", t.ErrorKind_Unauthenticated), ("error-loading.json", t.ErrorKind_Overloaded),
                   ("error-bad-json.json", None), ("error-context.json", t.ErrorKind_InvalidRequest)]:
    (failed,) = events(name)
    assert kind is None or isinstance(failed.value.kind, kind), (name, failed)
    assert failed.value.message
for broken in ["", "{", "[]", "null", '{"error":"x"}', '{"choices":[1]}', '{"choices":[]}']:
    decoder = chat.Decoder("{}", None, t.ResponseHead(200, [], t.Framing_Whole(), False))
    out = decoder.feed([t.Frame_Bytes(broken.encode())]) + decoder.finish()
    assert isinstance(out[-1].value.kind, t.ErrorKind_MalformedResponse), (broken, out)
print("ok")

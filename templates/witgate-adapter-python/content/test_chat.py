#!/usr/bin/env python3
"""The adapter without a component, against the samples. `build` makes the bindings that it needs."""
import sys

sys.path[:0] = ["src", ".bindings"]
sys.dont_write_bytecode = True
import chat
from wit_world.imports import types as t


def events(datas, settings="{}"):
    decoder = chat.Decoder(settings, None, t.ResponseHead(200, [], t.Framing_Sse(), True))
    out = []
    for data in datas:
        out += decoder.feed([t.Frame_Sse(t.SseEvent(None, data, None))])
        if out and isinstance(out[-1], (t.Event_Done, t.Event_Failed)):
            return out
    return out + decoder.finish()


def text(out):
    return "".join(event.value.text for event in out if isinstance(event, t.Event_Text))


with open("samples/chat.sse") as file:
    datas = [line[6:].rstrip() for line in file if line.startswith("data: ")]
assert text(events(datas)) == "HELLO, WORLD"
assert text(events(datas, '{"suffix": "!"}')) == "HELLO, WORLD!"
assert isinstance(events(datas[:2])[-1].value.kind, t.ErrorKind_MalformedResponse)
print("ok")

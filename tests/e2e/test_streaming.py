"""Streamed chat: the chunks' exact shape, and that they come one by one."""

import json
import time

import pytest

import kit
from test_chat import WEATHER

USER = [{"role": "user", "content": "hello"}]
FIXED = {"temperature": 0, "seed": 1, "max_tokens": 30, "cache_prompt": False}


def content(events):
    parts = []
    for event in events:
        if event.data and event.data != "[DONE]":
            parts += [choice["delta"].get("content") or "" for choice in event.json()["choices"]]
    return "".join(parts)


def chunks(events):
    return [event.json() for event in events if event.data and event.data != "[DONE]"]


def test_the_stream_gives_the_text_of_the_whole_answer(gateway):
    whole = gateway.chat("tiny", **FIXED).json()
    status, events = gateway.stream("tiny", **FIXED)
    assert status == 200
    assert content(events) == whole["choices"][0]["message"]["content"]
    finishes = [c["choices"][0]["finish_reason"] for c in chunks(events) if c["choices"]]
    assert finishes[-1] == whole["choices"][0]["finish_reason"] and not any(finishes[:-1])


def test_the_chunks_have_openais_shape(gateway):
    with gateway.open_chat("tiny", **FIXED) as wire:
        status, headers = wire.head()
        events = list(kit.frames(wire))
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    assert events[-1].data == "[DONE]" and [e.data for e in events].count("[DONE]") == 1
    found = chunks(events)
    assert {c["object"] for c in found} == {"chat.completion.chunk"}
    assert len({c["id"] for c in found}) == 1 and len({c["created"] for c in found}) == 1
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    # The role is told once, and the last delta is empty.
    assert sum("role" in c["choices"][0]["delta"] for c in found if c["choices"]) == 1
    assert not found[-1]["choices"][0]["delta"].get("content")


@pytest.mark.gateway_only
def test_a_stream_is_not_to_be_kept_or_held_back(gateway):
    with gateway.open_chat("tiny", **FIXED) as wire:
        _, headers = wire.head()
    assert "no-cache" in headers.get("cache-control", "")
    assert "content-length" not in headers


def test_usage_comes_in_one_last_chunk_where_it_is_asked_for(gateway):
    whole = gateway.chat("tiny", **FIXED).json()["usage"]
    _, events = gateway.stream("tiny", stream_options={"include_usage": True}, **FIXED)
    *others, last = chunks(events)
    assert last["choices"] == []
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert last["usage"][name] == whole[name]
    assert not any(c.get("usage") for c in others)


@pytest.mark.gateway_only
def test_every_other_chunk_has_a_usage_of_null(gateway):
    _, events = gateway.stream("tiny", stream_options={"include_usage": True}, **FIXED)
    for chunk in chunks(events)[:-1]:
        assert "usage" in chunk and chunk["usage"] is None


def test_no_usage_comes_unasked(gateway):
    for more in ({}, {"stream_options": {"include_usage": False}}):
        _, events = gateway.stream("tiny", **more, **FIXED)
        assert not any(c.get("usage") for c in chunks(events))
        assert all(c["choices"] for c in chunks(events))


@pytest.mark.gateway_only
def test_the_log_has_the_usage_of_a_stream_that_asked_for_none(gateway, unique):
    with gateway.open_chat("tiny", unique, headers={"x-request-id": unique}, **FIXED) as wire:
        wire.head()
        list(kit.frames(wire))
    whole = gateway.chat("tiny", unique, **FIXED).json()["usage"]
    line = next(line for line in gateway.log_of(unique) if "status" in line)
    assert line["input_tokens"] == whole["prompt_tokens"]
    assert line["output_tokens"] == whole["completion_tokens"]


def test_unknown_fields_of_the_answer_come_in_the_chunks(gateway):
    _, events = gateway.stream("tiny", timings_per_token=True, **FIXED)
    timed = [c for c in chunks(events) if "timings" in c]
    assert len(timed) >= 2 and timed[-1]["timings"]["predicted_n"] > timed[0]["timings"]["predicted_n"]


def test_logprobs_come_in_the_chunks(gateway):
    _, events = gateway.stream("tiny", logprobs=True, top_logprobs=2, **FIXED)
    tokens = []
    for chunk in chunks(events):
        for choice in chunk["choices"]:
            tokens += ((choice.get("logprobs") or {}).get("content")) or []
    assert "".join(t["token"] for t in tokens) == content(events)
    assert all(len(t["top_logprobs"]) == 2 for t in tokens)


def test_two_choices_are_told_apart(gateway):
    _, events = gateway.stream("tiny", n=2, temperature=1.5, max_tokens=8)
    indexes = [choice["index"] for chunk in chunks(events) for choice in chunk["choices"]]
    finishes = [c["index"] for chunk in chunks(events) for c in chunk["choices"] if c.get("finish_reason")]
    assert set(indexes) == {0, 1} and sorted(finishes) == [0, 1]
    assert events[-1].data == "[DONE]"


def test_a_tool_call_comes_in_deltas(tools_gateway):
    stream = tools_gateway.client.chat.completions.create(
        model="tools",
        messages=USER,
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=300,
        temperature=0,
        stream=True,
    )
    arguments, ids, names, finish = "", [], [], None
    for chunk in stream:
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                assert call.index == 0
                ids += [call.id] if call.id else []
                names += [call.function.name] if call.function.name else []
                arguments += call.function.arguments or ""
    assert finish == "tool_calls" and len(ids) == 1 and names == ["get_weather"]
    assert json.loads(arguments)["city"] in ("Paris", "Rome")


def test_the_official_client_reads_the_stream(client):
    with client.chat.completions.stream(model="tiny", messages=USER, temperature=0, max_tokens=400) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds and kinds[-1] == "content.done"
    assert final.choices[0].message.content


def test_tokens_come_as_they_are_made(slow_gateway):
    """Not gathered: the first of 200 tokens of some milliseconds each is there long before the last."""

    def check():
        with slow_gateway.open_chat("slow", max_tokens=200) as wire:
            wire.head()
            times = [event.at for event in kit.frames(wire) if event.data and '"content"' in event.data]
        assert len(times) > 100
        assert times[-1] - times[0] > 0.1
        gaps = [b - a for a, b in zip(times, times[1:])]
        assert max(gaps) < (times[-1] - times[0]) / 2

    kit.tries(check)


@pytest.mark.gateway_only
def test_each_token_is_passed_on_at_once(gateway):
    """The double writes one every 100 ms; each arrives by itself."""

    def check():
        with gateway.open_chat("double/drip") as wire:
            wire.head()
            times = []
            for event in kit.frames(wire):
                if event.data and "drip" in event.data:
                    times.append(event.at)
                if len(times) == 8:
                    break
        gaps = [b - a for a, b in zip(times, times[1:])]
        # Whoever reads late finds some of them at once.
        assert sum(gap > 0.02 for gap in gaps) >= 5 and max(gaps) < 0.1 + kit.SLACK, gaps

    kit.tries(check)


@pytest.mark.gateway_only
def test_a_slow_reader_does_not_lose_a_byte_nor_fill_the_gateway(gateway):
    """The double writes without end; a client that does not read must not make the gateway keep it all."""
    with gateway.open_chat("double/loud") as wire:
        wire.head()
        pieces = kit.frames(wire)
        next(pieces)
        before = memory(gateway.process.pid)
        time.sleep(1.5)
        grown = memory(gateway.process.pid) - before
        for _ in range(2000):
            event = next(pieces)
            assert event.json()["choices"][0]["delta"]["content"] == "loud " * 100
    assert grown < 32 << 20, f"grew by {grown} bytes"


def memory(pid):
    """Resident bytes of a process."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096

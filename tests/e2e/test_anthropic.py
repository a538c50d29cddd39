"""Anthropic's Messages API behind the gateway: a server that replays fixtures, and the real llama-server's own /v1/messages."""

import json

import pytest

import kit
from test_bedrock import failed, joined, text_of
from test_chat import WEATHER
from test_streaming import chunks, content

pytestmark = pytest.mark.gateway_only

STREAM_TEXT = 'Hello, Grüße, 世界 🦀!\n"quoted" \\ done'
FORECAST = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


def counts(line):
    return int(line["input_tokens"]), int(line["output_tokens"])


def logged(gateway, request_id):
    """The counts of a request in the log."""
    return counts(next(line for line in gateway.log_of(request_id) if "status" in line))


def broken(gateway, model):
    """The error of a stream that broke off: its last event, or where nothing had been told yet, the whole answer."""
    with gateway.open_chat(model) as wire:
        status, _ = wire.head()
        if status == 200:
            return failed(list(kit.frames(wire)))
        assert status == 429 or status >= 500, status
        return json.loads(b"".join(wire.pieces()))["error"]


def test_text(backends, replay, unique):
    answer = backends.chat("anthropic/text", unique, max_tokens=50)
    assert text_of(answer) == "Hi! Grüße 🦀"
    value = answer.json()
    assert value["choices"][0]["finish_reason"] == "stop"
    assert value["usage"]["prompt_tokens"] == 25 and value["usage"]["completion_tokens"] == 15
    (seen,) = replay.of(unique)
    assert seen.path == "/anthropic/v1/messages" and seen.json["max_tokens"] == 50
    assert seen.json["messages"] in (
        [{"role": "user", "content": unique}],
        [{"role": "user", "content": [{"type": "text", "text": unique}]}],
    )


@pytest.mark.parametrize("manner", ["", "@1", "@5", "@64"])
def test_a_stream_is_the_same_however_the_network_divides_it(backends, replay, manner):
    status, events = backends.stream(f"anthropic/text{manner}", stream_options={"include_usage": True})
    assert status == 200 and events[-1].data == "[DONE]" and content(events) == STREAM_TEXT
    found = chunks(events)
    reasons = [choice["finish_reason"] for chunk in found for choice in chunk["choices"]]
    assert reasons[-1] == "stop" and not any(reasons[:-1])
    assert found[-1]["usage"]["prompt_tokens"] == 25 and found[-1]["usage"]["completion_tokens"] == 15


def test_the_log_counts_the_same_for_a_stream_and_a_whole_answer(backends, replay, unique):
    for name, stream in (("whole", False), ("stream", True)):
        with backends.open_chat("anthropic/text", unique, stream, {"x-request-id": unique + name}) as wire:
            wire.answer()
    assert logged(backends, unique + "whole") == logged(backends, unique + "stream") == (25, 15)


@pytest.mark.parametrize("stream", [False, True])
def test_tools(backends, replay, unique, stream):
    more = {"tools": [WEATHER, FORECAST], "tool_choice": "auto"}
    if stream:
        status, events = backends.stream("anthropic/tools@7", unique, **more)
        assert status == 200 and events[-1].data == "[DONE]" and content(events) == "I'll look."
        calls = [(call["name"], json.loads(call["arguments"] or "{}")) for call in joined(events)]
        assert calls == [("get_weather", {"city": "München", "days": 2}), ("now", {}), ("now", {})]
        assert chunks(events)[-1]["choices"][0]["finish_reason"] == "tool_calls"
    else:
        (choice,) = backends.chat("anthropic/tools", unique, **more).json()["choices"]
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "I'll look."
        calls = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in choice["message"]["tool_calls"]]
        assert calls == [("get_weather", {"city": "München", "days": 2.5}), ("now", {})]
    (seen,) = replay.of(unique)
    assert [tool["name"] for tool in seen.json["tools"]] == ["get_weather", "now"]
    assert seen.json["tool_choice"]["type"] == "auto"


def test_results_of_tools_go_back_in_anthropics_form(backends, replay, unique):
    call = {"id": "toolu_01A", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'}}
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": unique},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "toolu_01A", "content": "21 degrees"},
    ]
    body = {"model": "anthropic/text", "messages": messages, "tools": [WEATHER]}
    assert backends.post("/v1/chat/completions", body).status == 200
    (seen,) = replay.of(unique)
    assert "be kind" in json.dumps(seen.json["system"])
    use = next(block for block in seen.json["messages"][1]["content"] if block["type"] == "tool_use")
    assert (use["id"], use["name"], use["input"]) == ("toolu_01A", "get_weather", {"city": "Rome"})
    assert seen.json["messages"][2]["content"][0]["tool_use_id"] == "toolu_01A"


def test_what_ends_an_answer(backends, replay):
    reasons = {"stop-sequence": "stop", "context-window": "length"}
    for model, reason in reasons.items():
        assert backends.chat(f"anthropic/{model}").json()["choices"][0]["finish_reason"] == reason, model
    status, events = backends.stream("anthropic/refusal")
    assert status == 200 and chunks(events)[-1]["choices"][0]["finish_reason"] == "content_filter"


# What Anthropic says, and what a client of the gateway is told: a wrong key is the operator's trouble, and an empty purse is
# told as OpenAI tells it.
ERRORS = {
    "error-400": 400,
    "error-401": 502,
    "error-402": 429,
    "error-404": 404,
    "error-413": 413,
    "error-429": 429,
    "error-500": 502,
    "error-503": 503,
    "error-529": 503,
    "error-502": 502,
    "error-504": 504,
    "error-context": 400,
    "error-credit": 429,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", list(ERRORS))
def test_errors_have_the_status_that_a_client_is_to_see(backends, replay, model, stream):
    answer = backends.chat(f"anthropic/{model}", stream=stream)
    assert answer.status == ERRORS[model], answer.text
    assert answer.error["message"] and answer.headers["content-type"].startswith("application/json")
    if model == "error-429":
        assert answer.headers["retry-after"] == "7"
    if model in ("error-402", "error-credit"):
        assert answer.error["type"] == "insufficient_quota" and "retry-after" not in answer.headers
    if model == "error-context":
        assert answer.error["code"] == "context_length_exceeded"


def test_a_wrong_key_is_the_gateways_fault_not_the_clients(backends, replay):
    answer = backends.chat("anthropic-key/text")
    assert answer.status == 502 and "not-the-key" not in answer.text


@pytest.mark.parametrize("model", ["cut", "no-message-stop", "error", "error-text", "not-json", "text@reset"])
def test_a_stream_that_breaks_off_never_has_a_clean_end(backends, replay, model):
    assert broken(backends, f"anthropic/{model}")["message"]


def test_a_stream_that_fails_first_is_an_error_of_its_own(backends, replay):
    for model, status in (("error-first", 429), ("empty", 502)):
        answer = backends.chat(f"anthropic/{model}", stream=True)
        assert answer.status == status and answer.error["message"], (model, answer.text)


@pytest.mark.parametrize("model", ["text@reset", "empty-body", "html", "error"])
def test_a_whole_answer_that_cannot_be_read_is_an_error(backends, replay, model):
    answer = backends.chat(f"anthropic/{model}")
    assert answer.status in (502, 503) and answer.error["message"], answer.text


# --- the real llama-server, by its own /v1/messages -------------------------------------------------------------------


def test_llama_servers_messages_answer_and_stream_alike(backends, unique):
    options = {"max_tokens": 12, "temperature": 0}
    whole = backends.chat("llama-messages/tiny", headers={"x-request-id": unique + "whole"}, **options)
    assert whole.status == 200, whole.text
    with backends.open_chat("llama-messages/tiny", headers={"x-request-id": unique + "stream"}, **options) as wire:
        assert wire.head()[0] == 200
        events = list(kit.frames(wire))
    assert events[-1].data == "[DONE]" and content(events) == text_of(whole) != ""
    usage = whole.json()["usage"]
    assert logged(backends, unique + "whole") == logged(backends, unique + "stream")
    assert logged(backends, unique + "whole") == (usage["prompt_tokens"], usage["completion_tokens"])


def test_llama_servers_messages_call_tools(backends):
    options = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 300, "temperature": 0}
    answer = backends.chat("llama-messages-tools/tools", "what is the weather like", **options)
    assert answer.status == 200, answer.text
    (choice,) = answer.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    function = choice["message"]["tool_calls"][0]["function"]
    assert function["name"] == "get_weather" and json.loads(function["arguments"])["city"] in ("Paris", "Rome")
